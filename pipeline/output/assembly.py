"""Response tables become one Parquet file, a few thousand rows in memory at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.input.parquet import parquet_file
from pipeline.input.shards import Chunk
from pipeline.output.footer import KEY, Footer, check_counts, read_footer

_GROUP_ROWS = 4096
_GROUP_BYTES = 32 << 20


def write_table(file: BinaryIO, tables: Iterable[pa.Table], footer: Footer | None = None) -> None:
    """Writes tables of one schema, one at least, in order. footer: of a response file or a chunk."""
    groups = _groups(tables)
    first = next(groups)
    writer = pq.ParquetWriter(file, first.schema, compression="zstd", write_page_checksum=True)
    # No `with`: it would add a valid footer to what an exception left unfinished.
    for group in chain([first], groups):
        # Hugging Face's datasets can't read a row group without rows.
        if group.num_rows:
            writer.write_table(group)
    if footer:
        writer.add_key_value_metadata({KEY: footer.to_bytes()})
    writer.close()


def check_table(path: Path, footer: Footer) -> None:
    """Reads a written file anew. Raises OutputError where it isn't what was meant."""
    with pa.OSFile(str(path)) as file:
        parquet = parquet_file(file)
        found = read_footer(parquet)
        if found != footer:
            raise OutputError(f"{footer.shard}: written {footer}, read back {found}")
        try:
            check_counts(parquet, footer.tally)
        except OutputError as error:
            raise OutputError(f"{footer.shard}: {error}") from None


def dimensions(table: pa.Table) -> tuple[int, ...]:
    """The lengths of the vectors in a table's `embedding` column, each once, ascending.

    A column carried along may be called so, too: it comes after the answers' own, of which attempts is last.
    """
    names = table.column_names
    if "embedding" not in names[: names.index("attempts")]:
        return ()
    lengths = pc.unique(pc.list_value_length(table.column("embedding"))).drop_null()
    return tuple(sorted(lengths.to_pylist()))


def with_vectors(table: pa.Table, lengths: tuple[int, ...]) -> pa.Table:
    """The table with its `embedding` column as fixed-size lists, if the file has one length only."""
    if not lengths:
        return table
    place, field = table.schema.get_field_index("embedding"), table.schema.field("embedding")
    column, kind = table.column("embedding"), field.type.value_type
    if len(lengths) > 1:
        any_length = pa.list_(kind)
        return table.set_column(place, field.with_type(any_length), column.cast(any_length))
    if pa.types.is_fixed_size_list(field.type):
        return table
    fixed_type = pa.list_(kind, lengths[0])
    fixed = pa.chunked_array([_fixed(chunk, fixed_type) for chunk in column.chunks], fixed_type)
    return table.set_column(place, field.with_type(fixed.type), fixed)


def cover(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Of one shard's chunks, those that together hold the most rows and none twice, in order.

    Chunks overlap where a range was cut anew while the worker that had held it was still writing.
    """
    best: dict[int, tuple[int, Chunk | None]] = {0: (0, None)}
    ends = [0]
    for chunk in sorted(set(chunks), key=lambda c: (c.stop, c.start)):
        before = _last_end(ends, chunk.start)
        rows, last = best[before][0] + chunk.rows, best[ends[-1]][0]
        if rows > last:
            best[chunk.stop] = (rows, chunk)
            if ends[-1] != chunk.stop:
                ends.append(chunk.stop)
    return _walk_back(best, ends)


def _walk_back(best: dict[int, tuple[int, Chunk | None]], ends: list[int]) -> list[Chunk]:
    chosen: list[Chunk] = []
    at = ends[-1]
    while (chunk := best[at][1]) is not None:
        chosen.append(chunk)
        at = _last_end(ends, chunk.start)
    return chosen[::-1]


def _last_end(ends: list[int], row: int) -> int:
    """The last of the ascending `ends` that is not behind `row`."""
    return ends[bisect_right(ends, row) - 1]


def joined(footers: Iterable[Footer]) -> Footer:
    """The footer of a file made of consecutive files. Raises OutputError where they aren't consecutive."""
    first, *others = footers
    for other in others:
        if (other.shard, other.start) != (first.shard, first.stop):
            raise OutputError(f"{first.shard}: no rows from {first.stop} to {other.start}")
        lengths = tuple(sorted({*first.dimensions, *other.dimensions}))
        first = replace(first, stop=other.stop, tally=first.tally + other.tally, dimensions=lengths)
    return first


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(t.num_rows for t in held) >= _GROUP_ROWS or sum(t.nbytes for t in held) >= _GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _fixed(vectors: pa.Array, fixed_type: pa.FixedSizeListType) -> pa.Array:
    present = np.asarray(vectors.is_valid())
    numbers, length = np.asarray(vectors.flatten()), fixed_type.list_size
    values = np.zeros((len(vectors), length), numbers.dtype)
    values[present] = numbers.reshape(-1, length)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), type=fixed_type, mask=pa.array(~present)
    )
