"""JSON lines: where the rows of a file begin, and the rows of a part of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import RowError
from pipeline.request.json_values import read_json
from pipeline.request.names import row_name

LINE = "line"
_BLOCK = 1 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class LineIndex:
    """A row is a line that isn't blank.

    offsets: the byte at which every `every`-th row begins; names: a 64-bit hash of each row's custom_id,
    0 where it has none; digest: a hash of the whole file, hex.
    """

    rows: int
    offsets: tuple[int, ...]
    names: NDArray[np.uint64]
    digest: str


def index_lines(file: pa.NativeFile, every: int) -> LineIndex:
    """Reads the file once, a line at a time."""
    offsets: list[int] = []
    names: list[int] = []
    digest = hashlib.blake2b(digest_size=16)
    for offset, line in lines(file, 0):
        digest.update(line + b"\n")
        if len(names) % every == 0:
            offsets.append(offset)
        names.append(name_hash(_custom_id(line)))
    return LineIndex(len(names), tuple(offsets), np.array(names, np.uint64), digest.hexdigest())


def read_lines(file: pa.NativeFile, offset: int, rows: int) -> pa.Table:
    """`rows` rows from the byte `offset` on: one column, of text, or of bytes where one isn't UTF-8."""
    found: list[bytes] = []
    if rows:
        for _, line in lines(file, offset):
            found.append(line)
            if len(found) == rows:
                break
    table = pa.table({LINE: pa.array(found, pa.large_binary())})
    try:
        return table.cast(pa.schema([(LINE, pa.large_string())]))
    except pa.ArrowInvalid:
        return table


def lines(file: pa.NativeFile, start: int) -> Iterator[tuple[int, bytes]]:
    """The offset and the bytes of each line from `start` on, without its end; blank lines are left out."""
    file.seek(start)
    offset, parts = start, [b""]
    while block := file.read(_BLOCK):
        *ended, rest = block.split(b"\n")
        for end in ended:
            parts.append(end)
            line = b"".join(parts)
            yield from _row(offset, line)
            offset, parts = offset + len(line) + 1, []
        parts.append(rest)
    yield from _row(offset, b"".join(parts))


def name_hash(value: Any) -> int:
    """64 bits that tell the names apart that values of custom_id mean; 0 for a value that names nothing."""
    try:
        name = row_name(value, "custom_id")
    except RowError:
        return 0
    if name is None:
        return 0
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) or 1


def _row(offset: int, line: bytes) -> Iterator[tuple[int, bytes]]:
    text = line.removeprefix(_BOM) if offset == 0 else line
    if text.strip():
        yield offset, text.rstrip(b"\r")


def _custom_id(line: bytes) -> Any:
    try:
        record = read_json(line, None, as_written=True)
    except RowError:
        return None
    return record.get("custom_id") if isinstance(record, dict) else None
