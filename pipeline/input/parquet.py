"""Parquet files as the pipeline reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq


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


def footer_digest(file: pa.NativeFile) -> str:
    """A hash, hex, of a file's footer: the sizes, places and ranges of all its pieces, and its notes."""
    size = file.size()
    file.seek(size - 8)
    length = int.from_bytes(file.read(4), "little")
    file.seek(size - 8 - length)
    return hashlib.blake2b(file.read(length), digest_size=16).hexdigest()
