"""Parquet files as the pipeline reads them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_file(file: pa.NativeFile, buffer_size: int = 0) -> pq.ParquetFile:
    """An open file's rows. Read with use_threads=False, it is read by the calling thread alone.

    buffer_size: bytes of a column chunk to read at a time; 0 reads it whole.
    """
    # Pre-buffering reads on threads of Arrow's, whatever use_threads says. One of them may let go of a
    # Python buffer after Python has begun to end, which aborts the process.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=buffer_size)
