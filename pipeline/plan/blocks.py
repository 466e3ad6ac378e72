"""What the sampled rows of a plan have cost, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.input.shards import Chunk
from pipeline.output.assembly import write_table
from pipeline.output.committed import CommittedRows
from pipeline.output.footer import count
from pipeline.output.tried_out import tables_of
from pipeline.plan.try_out import Part

Amounts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Of each block: its rows, those that failed, tokens, and bytes in a Parquet file."""

    rows: Amounts
    failed: Amounts
    prompt_tokens: Amounts
    cached_tokens: Amounts
    completion_tokens: Amounts
    size: Amounts

    @classmethod
    def of(cls, answers: CommittedRows, part: Part, block: int) -> Blocks:
        """The blocks of a part whose rows are all answered. block: rows of each. Raises OutputError."""
        shards = [_table(answers, shard, chunks) for shard, chunks in part.items()]
        blocks = [piece for table, numbers in shards for piece in _split(table, numbers // block)]
        found = np.array([_amounts(table) for table in blocks], np.float64).T
        # Rows compress better in the large row groups of a response file.
        found[-1] *= sum(data_bytes(table) for table, _ in shards) / max(found[-1].sum(), 1.0)
        return cls(*found)


def _table(answers: CommittedRows, shard: str, chunks: list[Chunk]) -> tuple[pa.Table, NDArray[np.int64]]:
    """The answers to a shard's rows, and the rows' numbers."""
    table = pa.concat_tables(tables_of(answers, {shard: chunks}))
    return table, np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in chunks])


def _split(table: pa.Table, blocks: NDArray[np.int64]) -> Iterator[pa.Table]:
    """The rows of each block, in order."""
    ends = [*(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(blocks)]
    for start, end in pairwise([0, *ends]):
        yield table.slice(start, end - start)


def _amounts(table: pa.Table) -> tuple[float, ...]:
    tally = count(table)
    tokens = tally.prompt_tokens, tally.cached_tokens, tally.completion_tokens
    return tally.rows, tally.failed, *tokens, data_bytes(table)


def data_bytes(table: pa.Table) -> int:
    """Bytes of the rows in a Parquet file, without its footer."""
    file = pa.BufferOutputStream()
    write_table(file, [table])
    groups = pq.ParquetFile(pa.BufferReader(file.getvalue())).metadata
    return sum(
        groups.row_group(group).column(column).total_compressed_size
        for group in range(groups.num_row_groups)
        for column in range(groups.num_columns)
    )
