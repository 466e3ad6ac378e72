"""JSON lines: where the rows of a file begin, and the rows of a part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.errors import RowError
from pipeline.input.marked_rows import MarkedRows, raw_lines
from pipeline.input.pieces import MARK_EVERY, Mark, Piece, piece_end
from pipeline.request.json_values import read_json

LINE = "line"
_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"


def scan_lines(file: pa.NativeFile, start: int, stop: int | None) -> list[Piece]:
    """The pieces of the lines that begin from the byte `start` on and before `stop`; None: to the end.

    start: where a piece begins. A row is a line that isn't blank. Pieces without rows are left out.
    """
    pieces: list[Piece] = []
    found, end = _PieceOfLines(), 0
    for offset, line in lines(file, _line_start(file, start)):
        if stop is not None and offset >= stop:
            break
        if offset >= end:
            pieces += found.pieces()
            found, end = _PieceOfLines(), piece_end(offset)
        found.add(offset, line)
    return [*pieces, *found.pieces()]


class _PieceOfLines:
    """A piece that is being read."""

    def __init__(self) -> None:
        self._rows, self._marks, self._next_mark = 0, list[Mark](), 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, offset: int, line: bytes) -> None:
        self._digest.update(line)
        self._digest.update(b"\n")
        if offset >= self._next_mark:
            self._marks.append((self._rows, offset))
            self._next_mark = offset + MARK_EVERY
        self._rows += 1

    def pieces(self) -> list[Piece]:
        """It, or none where it has no rows."""
        if not self._rows:
            return []
        return [Piece(self._rows, tuple(self._marks), self._digest.hexdigest())]


class LineRows:
    """Reads rows of a file in any order; in order it reads each line once."""

    def __init__(self, file: pa.NativeFile, marks: tuple[Mark, ...]) -> None:
        self._rows = MarkedRows(lambda byte: lines(file, byte), marks)

    def take(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop): one column, of text, or of bytes where one isn't UTF-8."""
        table = pa.table({LINE: pa.array(self._rows.take(start, stop), pa.large_binary())})
        try:
            return table.cast(pa.schema([(LINE, pa.large_string())]))
        except pa.ArrowInvalid:
            return table


def lines(file: pa.NativeFile, start: int) -> Iterator[tuple[int, bytes]]:
    """The offset and the bytes of each line from `start` on, without its end; blank lines are left out."""
    offset = start
    for line in raw_lines(file, start):
        text = line if offset else line.removeprefix(_BOM)
        if text.strip():
            yield offset, text.removesuffix(b"\n").rstrip(b"\r")
        offset += len(line)


def custom_ids(file: pa.NativeFile) -> Iterator[Any]:
    """The custom_id of each row, in order; None where it has none."""
    for _, line in lines(file, 0):
        yield _custom_id(line)


def _line_start(file: pa.NativeFile, start: int) -> int:
    """The first byte from `start` on at which a line begins, or the end of the file."""
    if not start:
        return 0
    at = start - 1
    file.seek(at)
    while block := file.read(_BLOCK):
        found: int = block.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(block)
    return at


def _custom_id(line: bytes) -> Any:
    if b"custom_id" not in line and b"\\u" not in line:
        return None
    try:
        record = read_json(line, None, as_written=True)
    except RowError:
        return None
    return record.get("custom_id") if isinstance(record, dict) else None
