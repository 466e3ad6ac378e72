"""Rows of a shard, chunk after chunk, in flat memory."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Collection
from itertools import accumulate

import pyarrow as pa

from pipeline.config import RequestConfig
from pipeline.errors import InputError
from pipeline.input.csv_file import CsvRows
from pipeline.input.jsonl import LineRows
from pipeline.input.parquet import footer_digest, parquet_file, row_batches
from pipeline.input.shard import CHUNK_ROWS, Chunk, ShardPlan
from pipeline.request.rows import RowReader


def row_reader(config: RequestConfig, plan: ShardPlan) -> RowReader:
    """How the shard's rows become requests; raises as RowReader does."""
    texts = plan.shard.kind == "csv"
    return RowReader(config, plan.columns, plan.shard.name, plan.partition, texts=texts)


class ShardReader:
    """Reads chunks of one shard. Chunks asked for in order decode each row group once; any order works.

    JSON lines come as one column, `line`.
    The columns of its folders' names come after its own.
    Safe for several threads. Close it, or use it in a `with`.
    """

    def __init__(self, plan: ShardPlan, columns: Collection[str] | None = None) -> None:
        """columns: those to read; None for all. JSON lines' own column is always read."""
        self.plan = plan
        self._columns = columns
        self._file = plan.shard.open()
        self._lock = threading.Lock()
        self._rows: ParquetRows | None = None
        kind, delimiter = plan.shard.kind, plan.shard.delimiter
        self._lines = LineRows(self._file, plan.marks) if kind == "lines" else None
        self._csv = CsvRows(self._file, delimiter, plan.columns, plan.marks) if kind == "csv" else None

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self, chunk: Chunk) -> pa.Table:
        """The chunk's rows. Raises InputError naming the shard where it is broken."""
        try:
            with self._lock:
                table = self._read(chunk)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{chunk.shard}: rows {chunk.start} to {chunk.stop}: {error}") from error
        if table.num_rows != chunk.rows:
            raise InputError(f"{chunk.shard}: ends at row {chunk.start + table.num_rows}; did it change?")
        for name, value in self.plan.partition.items():
            if self._columns is None or name in self._columns:
                table = table.append_column(name, _repeated(value, chunk.rows))
        return table

    def _read(self, chunk: Chunk) -> pa.Table:
        if self._lines:
            return self._lines.take(chunk.start, chunk.stop)
        if self._csv:
            return self._csv.take(chunk.start, chunk.stop, self._columns)
        if self._rows is None and footer_digest(self._file) != self.plan.digest:
            raise InputError(f"{chunk.shard}: has changed since the job began: nightherd run says what to do")
        if self._rows is None or not self._rows.near(chunk.start):
            self._rows = ParquetRows(self._file, chunk.start, self._columns)
        return self._rows.take(chunk.start, chunk.stop)


def _repeated(value: str | None, rows: int) -> pa.Array:
    """A dictionary: so pyarrow reads a column of a folder's name, and joins it with one of the file's."""
    return pa.array([value] * rows, pa.string()).dictionary_encode()


class ParquetRows:
    """A Parquet file's rows from the row group that holds row `start`, in one pass."""

    def __init__(self, file: pa.NativeFile, start: int, columns: Collection[str] | None = None) -> None:
        parquet = parquet_file(file, buffer_size=1 << 20)
        groups = parquet.metadata
        sizes = (groups.row_group(i).num_rows for i in range(groups.num_row_groups))
        self._begins: list[int] = [0, *accumulate(sizes)]
        first = self._group(start)
        schema = parquet.schema_arrow
        # One at least: rows without any column can't be counted.
        self._names = [n for n in schema.names if columns is None or n in columns] or schema.names[:1]
        self._batches = row_batches(parquet, CHUNK_ROWS, self._names, first)
        self._at = self._begins[first]
        # No array without rows: Arrow can't make one of every type.
        fields = [schema.field(name) for name in self._names]
        self._held = pa.table([pa.chunked_array([], field.type) for field in fields], pa.schema(fields))

    def near(self, start: int) -> bool:
        """Whether going on from here is as good as opening the file anew."""
        return start >= self._at and self._group(start) <= self._group(self._at + self._held.num_rows) + 1

    def take(self, start: int, stop: int) -> pa.Table:
        self._skip(start)
        while self._held.num_rows < stop - start and self._more():
            pass
        taken = self._held.slice(0, stop - start)
        self._held, self._at = self._held.slice(stop - start), min(stop, start + taken.num_rows)
        return taken

    def _skip(self, start: int) -> None:
        while self._at + self._held.num_rows < start and self._more():
            drop = min(start - self._at, self._held.num_rows)
            self._held, self._at = self._held.slice(drop), self._at + drop
        self._held, self._at = self._held.slice(start - self._at), start

    def _more(self) -> bool:
        batch = next(self._batches, None)
        if batch is None:
            return False
        # To Parquet a.b is also the field b of a struct a.
        table = pa.Table.from_batches([batch]).select(self._names)
        self._held = pa.concat_tables([self._held, table])
        return True

    def _group(self, row: int) -> int:
        return max(0, bisect_right(self._begins, row, hi=len(self._begins) - 1) - 1)
