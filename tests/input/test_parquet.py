"""A Parquet file is read by the thread that asks, so that no read outlives it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.input.parquet import parquet_file

TABLE = pa.table({"a": list(range(9000)), "b": [f"row-{n}" for n in range(9000)]})
ROW_GROUP = 4000


class Readers(io.BytesIO):
    """A file that knows the threads that read it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.threads: set[int] = set()

    def read(self, size: int | None = -1) -> bytes:
        self.threads.add(threading.get_ident())
        return super().read(size)


def in_batches(parquet: pq.ParquetFile) -> pa.Table:
    return pa.Table.from_batches(parquet.iter_batches(batch_size=700, use_threads=False))


def at_once(parquet: pq.ParquetFile) -> pa.Table:
    return parquet.read(use_threads=False)


@pytest.mark.parametrize("buffer_size", [0, 1000])
@pytest.mark.parametrize("read", [in_batches, at_once])
def test_the_thread_that_asks_reads_all_rows_itself(
    read: Callable[[Any], pa.Table], buffer_size: int
) -> None:
    written = io.BytesIO()
    pq.write_table(TABLE, written, row_group_size=ROW_GROUP)
    file = Readers(written.getvalue())
    assert read(parquet_file(pa.PythonFile(file, mode="r"), buffer_size)) == TABLE
    assert file.threads == {threading.get_ident()}
