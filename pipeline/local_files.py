"""Local files: what a folder holds, and names that appear in one step and last."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def walk(root: str) -> dict[str, Any]:
    """All files under a local folder. Folders that vanish while it is read count as absent."""
    found: dict[str, Any] = {}
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    found[str(path)] = {"size": status.st_size, "mtime": status.st_mtime_ns}
    return found


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
