"""Parquet files as the pipeline reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

ReadRange = Callable[[int, int], bytes]
"""The bytes of a file from one place, and before another."""
_TAIL = 64 << 10
_MAGIC = b"PAR1"
_GZIP = b"\x1f\x8b"


def parquet_file(file: pa.NativeFile, buffer_size: int = 0, checked: bool = False) -> pq.ParquetFile:
    """An open file's rows. Read with use_threads=False, it is read by the calling thread alone.

    buffer_size: bytes of a column chunk to read at a time; 0 reads it whole. checked: pages that bear a
    checksum are held against it.
    """
    # Pre-buffering reads on threads of Arrow's, whatever use_threads says. One of them may let go of a
    # Python buffer after Python has begun to end, which aborts the process.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=buffer_size, page_checksum_verification=checked)


def row_batches(
    parquet: pq.ParquetFile, rows: int, columns: Sequence[str] | None = None, first_group: int = 0
) -> Iterator[pa.RecordBatch]:
    """A file's rows in order, at most `rows` at a time, from the row group `first_group` on.

    columns: of those names, None for all.
    """
    # One group after the other: where a nested column is dictionary-encoded, Arrow makes no batch of two.
    for group in range(first_group, parquet.metadata.num_row_groups):
        yield from parquet.iter_batches(rows, [group], columns, use_threads=False)


@dataclass(frozen=True, slots=True)
class Outline:
    """What a Parquet file's footer says of it. digest: a hash, hex, of the footer: the sizes, places and
    ranges of all its pieces, and its notes."""

    rows: int
    columns: tuple[str, ...]
    digest: str


def outline(read: ReadRange, size: int) -> Outline:
    """Reads the footer of a file of `size` bytes, mostly by one request.

    Raises ArrowException where it is no Parquet file.
    """
    tail = read(max(0, size - _TAIL), size)
    if tail[-4:] != _MAGIC and read(0, min(2, size)) == _GZIP:
        raise pa.ArrowInvalid("it is compressed as a whole: gunzip it")
    length = int.from_bytes(tail[-8:-4], "little")
    if tail[-4:] == _MAGIC and len(tail) < length + 8 <= size:
        tail = read(size - 8 - length, size)
    parquet = parquet_file(pa.BufferReader(tail))
    digest = _digest(tail[-8 - length : -8])
    return Outline(parquet.metadata.num_rows, tuple(parquet.schema_arrow.names), digest)


def footer_digest(file: pa.NativeFile) -> str:
    """The digest of an open file's footer."""
    size = file.size()
    file.seek(size - 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(size - 8 - length)
    return _digest(file.read(length))


def _digest(footer: bytes) -> str:
    return hashlib.blake2b(footer, digest_size=16).hexdigest()
