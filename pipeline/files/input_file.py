"""A file being read, whose reads come whole."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from pipeline.errors import StorageError
from pipeline.files.entry import Entry
from pipeline.files.retries import retried

Opener = Callable[[], tuple[BinaryIO, Entry]]
"""Opens a file anew, and says which state of it that is."""


class InputFile(io.RawIOBase):
    """Random access for pyarrow. A read that fails or comes back short is tried again on the file opened
    anew; StorageError in the end, and where the file has changed meanwhile. For one thread at a time.
    """

    def __init__(self, complaint: str, opener: Opener) -> None:
        self._complaint = complaint
        self._opener = opener
        self._at = 0
        self._file: BinaryIO | None
        self._file, self._entry = retried(complaint, opener)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._entry.size)[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        rest = max(0, self._entry.size - self._at)
        count = rest if size is None or size < 0 else min(size, rest)
        data = retried(self._complaint, lambda: self._whole(count)) if count else b""
        self._at += count
        return data

    def close(self) -> None:
        self._forget()
        super().close()

    def _whole(self, count: int) -> bytes:
        file = self._file or self._reopened()
        try:
            file.seek(self._at)
            data = file.read(count)
            if len(data) != count:
                raise OSError(f"{len(data)} bytes came of {count} from byte {self._at} on")
            return data
        except Exception:
            self._forget()
            raise

    def _reopened(self) -> BinaryIO:
        self._file, entry = self._opener()
        if entry != self._entry:
            # Pieces of two files would make a third that never was.
            raise StorageError(f"{self._complaint}: it changed while it was read")
        return self._file

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file:
            with suppress(Exception):
                file.close()
