"""Files in local folders: names that appear in one step and last."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.files.entry import Entry

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def walk(root: str, depth: int | None = None) -> dict[str, Any]:
    """All files under a local folder, `depth` folders deep. What vanishes meanwhile counts as absent."""
    found: dict[str, Any] = {}
    for path in _paths(root, depth):
        with suppress(FileNotFoundError):
            if _is_broken(path):
                continue
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found[str(path)] = {"size": status.st_size, "mtime": status.st_mtime_ns}
    return found


def broken_links(root: str, depth: int | None = None) -> list[str]:
    """The links under a local folder that point to nothing, or to themselves, and the folder if it is one."""
    if _is_broken(Path(root)):
        return [root]
    return sorted(str(path) for path in _paths(root, depth) if _is_broken(path))


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _paths(root: str, depth: int | None) -> Iterator[Path]:
    """What there is under a folder beside folders."""
    for folder, folders, names in os.walk(root, followlinks=True, onerror=_refuse):
        if depth is not None and folder[len(root.rstrip("/")) :].count("/") >= depth - 1:
            folders.clear()
        yield from (Path(folder, name) for name in names)


def open_local(path: str) -> tuple[BinaryIO, Entry]:
    """The file, and which file of that name it is."""
    file = Path(path).open("rb")  # noqa: SIM115
    status = os.fstat(file.fileno())
    return file, Entry(status.st_size, f"{status.st_mtime_ns} {status.st_ino}")


def read_local(path: str, start: int, stop: int) -> bytes:
    """The bytes [start, stop) of a file, as far as it has them."""
    with Path(path).open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def remove_tree(root: str) -> None:
    """Removes a folder and all below it, also while others do the same."""

    def refuse(_function: object, _path: str, info: tuple[type, BaseException, object]) -> None:
        if not isinstance(info[1], FileNotFoundError):
            raise info[1]

    shutil.rmtree(root, onerror=refuse)


def put_in_place(aside: Path, target: Path, overwrite: bool) -> bool:
    """Makes the closed and synced file `aside` appear as `target`; False if it existed and may not change."""
    make_folder(target.parent)
    if overwrite:
        aside.replace(target)
    elif not link(aside, target):
        return False
    sync_folder(target.parent)
    return True


def link(aside: Path, target: Path) -> bool:
    """Makes `target` another name of the closed file `aside`; False if `target` existed."""
    try:
        os.link(aside, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links: a rename is as whole, but two writers may both believe they won.
        if target.exists():
            return False
        aside.replace(target)
    return True


def _refuse(error: OSError) -> None:
    """For a folder that can't be listed: without an error, its files would seem not to exist."""
    if not isinstance(error, FileNotFoundError):
        raise error


def remove_empty(root: Path) -> None:
    """Removes a folder and those below it, as far as they hold no file."""
    for folder, _, _ in os.walk(root, topdown=False):
        with suppress(OSError):
            Path(folder).rmdir()


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents, and makes each new name survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems can't sync a folder; the file itself was synced before.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
