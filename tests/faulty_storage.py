"""Faults of file systems, put where `pipeline.files.storage` meets the operating system."""

from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from fsspec.implementations.arrow import ArrowFSWrapper

from pipeline.files.storage import Storage

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")
ALWAYS = 1000


def file_server(folder: Path) -> Storage:
    """A file system that can rename, but isn't local folders for fsspec; hdfs is reached in the same way."""
    return Storage("server://", ArrowFSWrapper(pyarrow.fs.LocalFileSystem()), str(folder))


@dataclass
class Countdown:
    """How often something fails yet."""

    left: int

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


Fault = Callable[[pytest.MonkeyPatch, int], None]
"""Makes the next calls of something fail, so many times."""


def failing(owner: Any, name: str, error: OSError) -> Fault:
    """owner.name raises."""

    def patch(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        original, fails = getattr(owner, name), Countdown(times)

        def function(*args: Any, **kwargs: Any) -> Any:
            if fails():
                raise error
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, function)

    return patch


class FullFile(io.BufferedWriter):
    """Takes the first bytes, then there is no space."""

    def write(self, data: Any) -> int:
        super().write(bytes(data)[:3])
        raise FULL


class UnclosableFile(io.BufferedWriter):
    """Fails when it is closed, as network file systems do."""

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise BROKEN


class TornFile(io.BufferedWriter):
    """Loses its second half without a word."""

    def close(self) -> None:
        if not self.closed:
            size = self.seek(0, os.SEEK_END)
            super().close()
            os.truncate(self.name, size // 2)


def written_to(kind: type[io.BufferedWriter]) -> Fault:
    """Files that are opened for writing are of this kind."""

    def patch(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        original, fails = Path.open, Countdown(times)

        def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if mode[0] in "wx" and fails():
                return kind(io.FileIO(path, mode.replace("b", "")))
            return original(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", opened)

    return patch


class ShortReads(io.BytesIO):
    """Gives half of what is there. details: what fsspec says of a file."""

    def __init__(self, data: bytes, details: dict[str, Any]) -> None:
        super().__init__(data)
        self.details = details

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        return data[: len(data) // 2]


WRITE_FAULTS: dict[str, Fault] = {
    "its file can't be made": failing(Path, "mkdir", FULL),
    "no space is left when it is written": written_to(FullFile),
    "no space is left when it is synced": failing(os, "fsync", FULL),
    "it can't be closed": written_to(UnclosableFile),
    "it loses its end": written_to(TornFile),
    "no space is left for its name": failing(os, "link", FULL),
}


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The system itself refuses to let files grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
