"""CSV and TSV files: where their rows begin, and what stands in them. Every value is a text."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline.input.marked_rows import MarkedRows, raw_lines
from pipeline.input.pieces import MARK_EVERY, Mark, Piece

_BOM = b"\xef\xbb\xbf"
# Python's own limit of a field is 128 KiB.
csv.field_size_limit(sys.maxsize)

Fields = list[str]


def scan_csv(file: pa.NativeFile, delimiter: str) -> list[Piece]:
    """The whole file as one piece, as only reading from its beginning tells which line ends are in quotes.

    Raises ArrowInvalid naming the line that is broken.
    """
    source = _Lines(file, 0)
    records = _records(source, delimiter, None)
    _, columns = next(records, (0, None))
    if columns is None:
        raise pa.ArrowInvalid("it is empty: the first line must name the columns")
    rows, marks, next_mark = 0, list[Mark](), 0
    for offset, _ in records:
        if offset >= next_mark:
            marks.append((rows, offset))
            next_mark = offset + MARK_EVERY
        rows += 1
    return [Piece(rows, tuple(marks), source.digest.hexdigest(), tuple(columns))]


def csv_records(file: pa.NativeFile, start: int, delimiter: str, width: int) -> Iterator[tuple[int, Fields]]:
    """The rows from the byte `start` on, at which one begins: its byte, and its `width` fields.

    Blank lines are left out. Raises ArrowInvalid.
    """
    return _records(_Lines(file, start), delimiter, width)


class CsvRows:
    """Reads rows of a file in any order; in order it reads each once."""

    def __init__(
        self, file: pa.NativeFile, delimiter: str, columns: Sequence[str], marks: tuple[Mark, ...]
    ) -> None:
        self._columns = columns
        self._rows = MarkedRows(lambda byte: csv_records(file, byte, delimiter, len(columns)), marks)

    def take(self, start: int, stop: int, wanted: Collection[str] | None) -> pa.Table:
        """Rows [start, stop), their columns of text. wanted: those of these names; None for all."""
        rows = self._rows.take(start, stop)
        # One at least: rows without any column can't be counted.
        names = [name for name in self._columns if wanted is None or name in wanted] or self._columns[:1]
        places = [self._columns.index(name) for name in names]
        arrays = [pa.array([row[place] for row in rows], pa.string()) for place in places]
        return pa.table(arrays, names=list(names))


def csv_column(file: pa.NativeFile, delimiter: str, columns: Sequence[str], name: str) -> Iterator[Any]:
    """One column's values, in order."""
    place = columns.index(name)
    records = csv_records(file, 0, delimiter, len(columns))
    next(records)  # the header
    for _, fields in records:
        yield fields[place]


class _Lines:
    """The lines of a file as text. end: the byte after the last one; number: how many came."""

    def __init__(self, file: pa.NativeFile, start: int) -> None:
        self.end, self.number = start, 0
        self.digest = hashlib.blake2b(digest_size=16)
        self._lines = raw_lines(file, start)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            text = line if self.end else line.removeprefix(_BOM)
            self.end, self.number = self.end + len(line), self.number + 1
            self.digest.update(line)
            try:
                yield text.decode()
            except UnicodeDecodeError as error:
                reason = f"line {self.number} is not UTF-8: {error.reason} at its byte {error.start}"
                raise pa.ArrowInvalid(f"{reason}; convert the file, as by iconv -f LATIN1 -t UTF-8") from None


def _records(source: _Lines, delimiter: str, width: int | None) -> Iterator[tuple[int, Fields]]:
    """width: fields of a row; None for those of the first one."""
    # The reader takes no more lines than a row has, so `source` is where the next row begins.
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        begin, line = source.end, source.number + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise pa.ArrowInvalid(f"line {line}: {error}") from None
        if fields is None:
            return
        if not fields:  # a blank line
            continue
        width = width or len(fields)
        if len(fields) != width:
            raise pa.ArrowInvalid(f"line {line}: {len(fields)} fields, but the header has {width}")
        yield begin, fields
