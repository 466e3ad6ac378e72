"""Rows of a text file, found by marks: in any order, and in order in one pass."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import pyarrow as pa

from pipeline.input.pieces import Mark

T = TypeVar("T")
_BLOCK = 1 << 20
_FAR = 4 * _BLOCK


class MarkedRows(Generic[T]):
    """Rows as `read` gives them: with the byte at which each begins, from one byte on at which a row does."""

    def __init__(self, read: Callable[[int], Iterator[tuple[int, T]]], marks: tuple[Mark, ...]) -> None:
        self._read, self._marks = read, marks
        self._rows: Iterator[tuple[int, T]] | None = None
        self._row = self._byte = 0

    def take(self, start: int, stop: int) -> list[T]:
        """Rows [start, stop), as far as there are any."""
        try:
            return list(self._take(start, stop)) if start < stop else []
        except BaseException:
            self._rows = None  # A generator that has failed is at its end.
            raise

    def _take(self, start: int, stop: int) -> Iterator[T]:
        for row in self._from(start):
            if self._row > start:
                yield row
            if self._row == stop:
                return

    def _from(self, start: int) -> Iterator[T]:
        """The rows from `start` on, or from an earlier one. `_row` is the number of the next one."""
        row, byte = self._marks[bisect_right(self._marks, start, key=lambda mark: mark[0]) - 1]
        # What has been read ahead is not read twice: a packed file would have to begin anew.
        if self._rows is None or self._row > start or byte > self._byte + _FAR:
            self._rows, self._row = self._read(byte), row
        for offset, found in self._rows:
            self._row, self._byte = self._row + 1, offset
            yield found


def raw_lines(file: pa.NativeFile, start: int) -> Iterator[bytes]:
    """The lines from the byte `start` on, each with its end."""
    file.seek(start)
    parts: list[bytes] = []
    while block := file.read(_BLOCK):
        *ended, rest = block.split(b"\n")
        for end in ended:
            yield b"".join([*parts, end, b"\n"]) if parts else end + b"\n"
            parts = []
        if rest:
            parts.append(rest)
    if parts:
        yield b"".join(parts)
