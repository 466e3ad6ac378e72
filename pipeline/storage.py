"""One folder on any file system, with publication that is all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.errors import NightherdError, StorageError
from pipeline.local_files import link, make_folder, sync_folder, walk

T = TypeVar("T")
Write = Callable[[BinaryIO], None]
Check = Callable[[Path], None]

ASIDE = "_work/tmp"
_TRIES = 3
_FIRST_PAUSE = 0.2
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created")
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
# memory:// lives in one process and has no create-only put: one lock makes the test and the put one step.
_memory = threading.Lock()


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a listing shows it. stamp: its etag or time of change, "" where the store has neither."""

    size: int
    stamp: str

    @classmethod
    def of(cls, info: dict[str, Any]) -> Entry:
        """From what fsspec says of a file."""
        stamp = next((info[key] for key in _STAMPS if info.get(key)), "")
        return cls(int(info["size"] or 0), str(stamp).strip('"'))


@dataclass(frozen=True)
class Storage:
    """A folder `root` of the file system `fs`. Names are paths below it, with "/" between their parts.

    A file that is published is complete or absent for every reader, at every moment, also when the
    writer dies; the first to publish a name wins. Raises StorageError where a file system fails three
    times in a row; FileNotFoundError where a file to read is absent.
    """

    url: str
    fs: Any = field(repr=False)
    root: str

    @classmethod
    def at(cls, url: str) -> Storage:
        """The folder at a local path or fsspec URL; it need not exist. Raises StorageError."""
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
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

    @property
    def _object_store(self) -> bool:
        return bool(getattr(self.fs, "async_impl", False))

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def list(self, below: str = "") -> dict[str, Entry]:
        """All files at any depth under the folder `below`, in the order of names; {} if it is absent."""
        found = self._try(f"list {below or '.'}", lambda: self._find(self.path(below)))
        start = len(self.root) + 1
        return {path[start:]: Entry.of(info) for path, info in sorted(found.items())}

    def glob(self, pattern: str) -> dict[str, Entry]:
        """The files below this folder that a glob matches ("**" spans folders), in the order of names."""
        found = self._try(f"list {pattern}", lambda: self.fs.glob(self._fresh(pattern), detail=True))
        start, files = len(self.root) + 1, (f for f in sorted(found.items()) if f[1]["type"] != "directory")
        return {path[start:]: Entry.of(info) for path, info in files}

    def entry(self, name: str) -> Entry:
        return Entry.of(self._try(f"look for {name}", lambda: self.fs.info(self._fresh(name))))

    def exists(self, name: str) -> bool:
        return bool(self._try(f"look for {name}", lambda: self.fs.isfile(self._fresh(name))))

    def read_bytes(self, name: str) -> bytes:
        return bytes(self._try(f"read {name}", lambda: self.fs.cat_file(self._fresh(name))))

    def open_input(self, name: str) -> pa.NativeFile:
        """The file, open for random access by pyarrow; the caller closes it."""
        opened = self._try(f"open {name}", lambda: self._open(self._fresh(name)))
        return opened if isinstance(opened, pa.NativeFile) else pa.PythonFile(opened, mode="r")

    def publish(self, name: str, write: Write, check: Check | None = None) -> bool:
        """Makes `name` appear with what `write` wrote; False, and no change, if it already existed.

        `write` may be called again after a failure, each time with an empty file. `check` reads the
        closed file at a local path and raises if it isn't what was meant. Whatever either raises
        leaves nothing behind.
        """
        return not self.exists(name) and self._try(
            f"write {name}", lambda: self._publish(name, write, check, overwrite=False)
        )

    def replace(self, name: str, data: bytes) -> None:
        """Makes `name` hold `data`, in one step, whether it existed or not."""

        def write(file: BinaryIO) -> None:
            file.write(data)

        self._try(f"write {name}", lambda: self._publish(name, write, None, overwrite=True))

    def remove(self, name: str) -> None:
        """Removes one file; none there is fine."""
        with suppress(FileNotFoundError):
            self._try(f"remove {name}", lambda: self.fs.rm_file(self._fresh(name)))

    def remove_tree(self, name: str) -> None:
        """Removes a folder and all below it; none there is fine."""
        with suppress(FileNotFoundError):
            self._try(f"remove {name}", lambda: self._remove_tree(self._fresh(name)))

    def _fresh(self, name: str) -> str:
        return self._refreshed(self.path(name))

    def _refreshed(self, path: str) -> str:
        self.fs.invalidate_cache(self.fs._parent(path))
        return path

    def _find(self, path: str) -> dict[str, Any]:
        self.fs.invalidate_cache()
        if self.local:
            return walk(path)
        try:
            return dict(self.fs.find(path, detail=True))
        except FileNotFoundError:
            return {}

    def _open(self, path: str) -> Any:
        if self.local:
            return pa.OSFile(path, mode="r")
        if isinstance(self.fs, MemoryFileSystem):
            # Its open files share one position among all readers.
            return pa.BufferReader(self.fs.cat_file(path))
        return self.fs.open(path, "rb")

    def _remove_tree(self, path: str) -> None:
        if self.local:
            shutil.rmtree(path)
        else:
            self.fs.rm(path, recursive=True)

    def _publish(self, name: str, write: Write, check: Check | None, *, overwrite: bool) -> bool:
        with self._aside() as path:
            with path.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if check:
                check(path)
            put = self._put_local if self.local else self._put_remote
            return put(path, self._fresh(name), overwrite)

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A new name for a local file that no reader looks at; what is left there goes at the end."""
        folder = Path(self.path(ASIDE)) if self.local else Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"nightherd-{uuid.uuid4().hex}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _put_local(self, aside: Path, path: str, overwrite: bool) -> bool:
        target = Path(path)
        make_folder(target.parent)
        if overwrite:
            aside.replace(target)
        elif not link(aside, target):
            return False
        sync_folder(target.parent)
        return True

    def _put_remote(self, aside: Path, path: str, overwrite: bool) -> bool:
        if not overwrite and self.fs.exists(path):
            return False
        try:
            self._upload(aside, path, "overwrite" if overwrite else "create")
        except FileExistsError:
            return False
        except OSError:
            # Stores word "precondition failed" in several ways; what counts is whether an object is there.
            if overwrite or not self._object_store or not self.fs.exists(self._refreshed(path)):
                raise
            return False
        size = self.fs.size(path)
        if overwrite or size == aside.stat().st_size:
            return True
        self.fs.rm_file(path)
        raise OSError(f"{path} held {size} bytes of {aside.stat().st_size} after it was put")

    def _upload(self, aside: Path, path: str, mode: str) -> None:
        if isinstance(self.fs, MemoryFileSystem):
            with _memory:
                self.fs.pipe_file(path, aside.read_bytes(), mode=mode)
        elif self._object_store:
            # Object stores show a new object when its last byte has come, and refuse to create it twice.
            self.fs.put_file(str(aside), path, mode=mode)
        else:
            self._upload_in_two_steps(aside, path, mode)

    def _upload_in_two_steps(self, aside: Path, path: str, mode: str) -> None:
        remote = self.path(f"{ASIDE}/{aside.name}")
        self.fs.makedirs(self.fs._parent(path), exist_ok=True)
        self.fs.put_file(str(aside), remote)
        if mode == "create" and self.fs.exists(path):
            self.fs.rm_file(remote)
            raise FileExistsError(path)
        self.fs.mv(remote, path)

    def _try(self, what: str, action: Callable[[], T]) -> T:
        for attempt in range(_TRIES):
            try:
                return action()
            except Exception as error:
                if not self._may_pass(error):
                    raise self._named(what, error) from error
                if attempt == _TRIES - 1:
                    raise StorageError(f"{self.url}: can't {what}: {_reason(error)}") from error
                time.sleep(_FIRST_PAUSE * 4**attempt)
        raise AssertionError("unreachable")

    def _may_pass(self, error: Exception) -> bool:
        if isinstance(error, (NightherdError, *_FINAL)):
            return False
        # The libraries behind object stores raise errors of their own when a network fails.
        client = type(error).__module__.split(".")[0] in {"botocore", "aiohttp", "google", "gcsfs", "azure"}
        return isinstance(error, OSError) or client

    def _named(self, what: str, error: Exception) -> Exception:
        if isinstance(error, _FINAL) and not isinstance(error, FileNotFoundError):
            return StorageError(f"{self.url}: can't {what}: {_reason(error)}")
        return error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
