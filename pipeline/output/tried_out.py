"""OUT/tryout.parquet: the answers of a try-out, in one file for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.input.shards import Chunk
from pipeline.output.assembly import with_vectors, write_table
from pipeline.output.committed import CommittedRows
from pipeline.output.footer import count
from pipeline.output.records import TRY_OUT, footer_of, response_name
from pipeline.plan.try_out import Part
from pipeline.tally import Tally

_ROWS = 1024


def write_tried_out(answers: CommittedRows, part: Part) -> Tally:
    """Writes the rows of the part, in the order of shards and rows and in the columns of the response files.

    The answers themselves stay where they are committed. Returns their tally. Raises OutputError.
    """
    tally = Tally()
    lengths = _lengths(answers, part)

    def tables() -> Iterator[pa.Table]:
        nonlocal tally
        for table in tables_of(answers, part):
            tally += count(table)
            yield with_vectors(table, lengths)

    def write(file: BinaryIO) -> None:
        nonlocal tally
        tally = Tally()
        write_table(file, tables())

    answers.manifest.output.overwrite(TRY_OUT, write)
    return tally


def tables_of(answers: CommittedRows, part: Part) -> Iterator[pa.Table]:
    """The answers to the part's rows, as far as they are committed, in order."""
    for shard, chunks in sorted(part.items()):
        for start, table in answers.tables(shard, lambda schema: schema.names, _ROWS):
            chosen = _chosen(chunks, start, start + len(table))
            if len(chosen):
                yield table.take(chosen - start)


def _chosen(chunks: list[Chunk], start: int, stop: int) -> np.ndarray:
    """The numbers of the part's rows from `start` to `stop`."""
    near = (chunk.cut(Chunk(chunk.shard, start, stop)) for chunk in chunks)
    ranges = [np.arange(chunk.start, chunk.stop) for chunk in near if chunk.rows > 0]
    return np.concatenate(ranges) if ranges else np.empty(0, np.int64)


def _lengths(answers: CommittedRows, part: Part) -> tuple[int, ...]:
    """Those of the vectors in the part's shards: the column is a fixed-size list where all are alike."""
    found: set[int] = set()
    for shard in part:
        try:
            found |= set(footer_of(answers.manifest.output, response_name(shard)).dimensions)
        except FileNotFoundError:
            for footer in answers.manifest.chunk_footers(shard):
                found |= set(footer.dimensions)
    return tuple(sorted(found))
