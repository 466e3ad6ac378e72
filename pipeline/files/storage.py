"""One folder on any file system, with publication that is all or nothing."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.utils import glob_translate

from pipeline.errors import StorageError
from pipeline.files.aside import aside, sweep, temporary_folder
from pipeline.files.entry import Entry
from pipeline.files.file_server import FileServer
from pipeline.files.hub import HubFiles
from pipeline.files.input_file import InputFile
from pipeline.files.local import (
    broken_links,
    open_local,
    put_in_place,
    read_local,
    remove_empty,
    remove_tree,
    walk,
)
from pipeline.files.memory import MemoryFiles
from pipeline.files.object_store import ObjectStore
from pipeline.files.remote import RemoteFiles
from pipeline.files.retries import retried

__all__ = ["ASIDE", "Entry", "Storage"]

T = TypeVar("T")
Write = Callable[[BinaryIO], None]
Check = Callable[[Path], None]

ASIDE = "_work/tmp"
"""Where files lie while they are written, on file systems that can rename."""


@dataclass(frozen=True)
class Storage:
    """A folder `root` of the file system `fs`. Names are paths below it, with "/" between their parts.

    A file that is published is complete or absent for every reader, at every moment, also when the
    writer dies; the first to publish a name wins. Raises StorageError where a file system fails again
    and again; FileNotFoundError where a file to read is absent.
    """

    url: str
    fs: Any = field(repr=False)
    root: str

    @classmethod
    def at(cls, url: str) -> Storage:
        """The folder at a local path or fsspec URL; it need not exist. Raises StorageError."""
        try:
            fs, root = fsspec.core.url_to_fs(url, **_options(url))
        except (ImportError, ValueError, OSError) as error:
            raise StorageError(f"{url}: {error}") from None
        return cls(url.rstrip("/") or "/", fs, str(root).rstrip("/"))

    @classmethod
    def around(cls, url: str) -> tuple[Storage, str]:
        """The folder that holds the file at a path or URL, and the file's name in it."""
        file = cls.at(url)
        folder, _, name = file.root.rpartition("/")
        return cls(file.url.rpartition("/")[0], file.fs, folder), name

    @property
    def local(self) -> bool:
        return isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def address(self, name: str = "") -> str:
        """The full path or URL of a file, or of the folder itself."""
        path = self.path(name)
        return path if self.local else str(self.fs.unstrip_protocol(path))

    def list(self, below: str = "") -> dict[str, Entry]:
        """All files at any depth under the folder `below`, in the order of names; {} if it is absent."""
        return self._list(below, None)

    def glob(self, pattern: str) -> dict[str, Entry]:
        """The files below this folder that a glob matches ("**" spans folders), in the order of names."""
        folder, depth = _fixed_part(pattern)
        fits = re.compile(glob_translate(pattern)).match
        return {name: entry for name, entry in self._list(folder, depth).items() if fits(name)}

    def broken_links(self, pattern: str = "**") -> tuple[str, ...]:
        """Links to nothing below this folder that a glob matches; the folder's own name is ""."""
        if not self.local:
            return ()
        folder, depth = _fixed_part(pattern)
        fits = re.compile(glob_translate(pattern)).match
        names = (path[len(self.root) + 1 :] for path in broken_links(self.path(folder), depth))
        return tuple(name for name in names if not name or fits(name))

    def entry(self, name: str) -> Entry:
        return Entry.of(self._try(f"look for {name}", lambda: self.fs.info(self._fresh(name))))

    def exists(self, name: str) -> bool:
        return self._try(f"look for {name}", lambda: self._is_file(self._fresh(name)))

    def read_bytes(self, name: str) -> bytes:
        return bytes(self._try(f"read {name}", lambda: self.fs.cat_file(self._fresh(name))))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of a file, by one request where the file system can."""

        def read() -> bytes:
            path = self._fresh(name)
            data = (
                read_local(path, start, stop) if self.local else self.fs.cat_file(path, start=start, end=stop)
            )
            if len(data) != stop - start:
                raise OSError(f"{len(data)} bytes came of {stop - start} from byte {start} on")
            return bytes(data)

        return self._try(f"read {name}", read) if stop > start else b""

    def open_input(self, name: str) -> pa.NativeFile:
        """The file, open for random access by pyarrow; the caller closes it. Reads come whole, or raise
        StorageError."""

        def opener() -> tuple[BinaryIO, Entry]:
            path = self._fresh(name)
            return open_local(path) if self.local else self._remote.open(path)

        return pa.PythonFile(InputFile(f"{self.url}: can't read {name}", opener), mode="r")

    def publish(self, name: str, write: Write, check: Check | None = None) -> bool:
        """Makes `name` appear with what `write` wrote; False, and no change, if it already existed.

        `write` may be called again after a failure, each time with an empty file. `check` reads the
        closed file at a local path and raises if it isn't what was meant. Whatever either raises
        leaves nothing behind. False may also mean that a put succeeded whose answer was lost.
        """
        return not self.exists(name) and self._put(name, write, check, overwrite=False)

    def replace(self, name: str, data: bytes) -> None:
        """Makes `name` hold `data`, in one step, whether it existed or not."""

        def write(file: BinaryIO) -> None:
            file.write(data)

        self.overwrite(name, write)

    def overwrite(self, name: str, write: Write, check: Check | None = None) -> None:
        """Makes `name` hold what `write` wrote, in one step, whether it existed or not; as `publish`."""
        self._put(name, write, check, overwrite=True)

    def remove(self, name: str) -> None:
        """Removes one file; none there is fine."""
        with suppress(FileNotFoundError):
            self._try(f"remove {name}", lambda: self.fs.rm_file(self._fresh(name)))

    def remove_tree(self, name: str) -> None:
        """Removes a folder and all below it; none there is fine."""
        with suppress(FileNotFoundError):
            self._try(f"remove {name}", lambda: self._remove_tree(self._fresh(name)))

    def remove_empty(self, name: str) -> None:
        """Removes the folder and those below it, as far as they hold no file."""
        if self.local:
            remove_empty(Path(self.path(name)))

    def sweep(self) -> int:
        """Removes what dead writers left half-written, here and on this machine; how many files that were.

        What a live writer holds stays, a stopped one's too. Where a writer can't be looked at, as on
        another machine, it counts as dead after a day. What can't be removed is left for the next time.
        """
        removed = 0
        with suppress(StorageError, FileNotFoundError):
            removed += retried("can't sweep", self._sweep_asides, tries=1)
            if not self.local:
                removed += retried("can't sweep", lambda: self._remote.sweep(self.root), tries=1)
        return removed

    def _sweep_asides(self) -> int:
        return sweep(Path(self.path(ASIDE)) if self.local else temporary_folder())

    def _list(self, below: str, depth: int | None) -> dict[str, Entry]:
        found = self._try(f"list {below or '.'}", lambda: self._find(self.path(below), depth))
        start = len(self.root) + 1
        return {path[start:]: Entry.of(info) for path, info in sorted(found.items())}

    @property
    def _remote(self) -> RemoteFiles:
        if isinstance(self.fs, MemoryFileSystem):
            return MemoryFiles(self.fs)
        if getattr(self.fs, "async_impl", False):
            return ObjectStore(self.fs)
        if self.fs.protocol == "hf":
            return HubFiles(self.fs)
        return FileServer(self.fs, self.path(ASIDE))

    def _fresh(self, name: str) -> str:
        path = self.path(name)
        if not self.local:
            self._remote.forget(path)
        return path

    def _find(self, path: str, depth: int | None) -> dict[str, Any]:
        self.fs.invalidate_cache()
        return walk(path or "/", depth) if self.local else self._remote.find(path, depth)

    def _is_file(self, path: str) -> bool:
        return Path(path).is_file() if self.local else self._remote.is_file(path)

    def _remove_tree(self, path: str) -> None:
        if self.local:
            remove_tree(path)
        else:
            self._remote.remove_tree(path)

    def _put(self, name: str, write: Write, check: Check | None, *, overwrite: bool) -> bool:
        def put() -> bool:
            return self._put_once(name, write, check, overwrite=overwrite)

        # However long the caller has written: a failure after that may pass like any other.
        return retried(f"{self.url}: can't write {name}", put, patience=math.inf)

    def _put_once(self, name: str, write: Write, check: Check | None, *, overwrite: bool) -> bool:
        with aside(self._aside_folder()) as path:
            written = _fill(path, write)
            with _may_be_cleared():
                if path.stat().st_size != written:
                    raise OSError(f"{path} holds {path.stat().st_size} bytes of {written} that were written")
                if check:
                    check(path)
                put = self._put_local if self.local else self._remote.put
                return put(path, self._fresh(name), overwrite)

    def _aside_folder(self) -> Path:
        if not self.local:
            return temporary_folder()
        folder = Path(self.path(ASIDE))
        with _may_be_cleared():
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _put_local(self, aside: Path, path: str, overwrite: bool) -> bool:
        return put_in_place(aside, Path(path), overwrite)

    def _try(self, what: str, action: Callable[[], T]) -> T:
        return retried(f"{self.url}: can't {what}", action)


def _fixed_part(pattern: str) -> tuple[str, int | None]:
    """The folder that a glob's matches lie in, and how deep; None for any depth."""
    magic = re.search(r"[*?[]", pattern)
    folder = pattern[: magic.start() if magic else None].rpartition("/")[0]
    rest = pattern[len(folder) :].lstrip("/")
    return folder, None if "**" in rest else rest.count("/") + 1


def _options(url: str) -> dict[str, Any]:
    """What a file system is opened with, beside the user's own settings for fsspec."""
    kind = fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))
    # A listing kept by one thread would hide from another what it has just published.
    return {"use_listings_cache": False} if kind.async_impl else {}


def _fill(path: Path, write: Write) -> int:
    """Writes a new file that survives a power cut; its size as the writer knows it."""
    with _may_be_cleared():
        file = path.open("xb")
    with file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        return file.seek(0, os.SEEK_END)


@contextmanager
def _may_be_cleared() -> Iterator[None]:
    """Others may clear the work folder at any time. Unlike a missing file of the caller's, that passes."""
    try:
        yield
    except FileNotFoundError as error:
        raise OSError(str(error)) from error
