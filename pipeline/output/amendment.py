"""The failed rows of a finished job, answered again: their new answers take the places of the old ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError, OutputError
from pipeline.input.shard_reader import ParquetRows
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.output.assembly import check_table, cover, with_vectors, write_table
from pipeline.output.footer import Footer
from pipeline.output.manifest import Manifest
from pipeline.output.records import answers_of, response_name
from pipeline.tally import ALREADY_ANSWERED, Tally

_ROWS = 4096


@dataclass(frozen=True)
class Amendment:
    """One retry of a finished job. number: 1 for the first retry of an output, and so on.

    A response file is replaced in one step, and its footer holds the number of the retry, so that a
    retry that was stopped goes on with the files that are left.
    """

    manifest: Manifest
    number: int

    def finished(self, plan: ShardPlan) -> Tally | None:
        """The shard's tally, where nothing (more) is to be done for it."""
        footer = self._footer(plan)
        return None if footer.awaits(self.number) else footer.tally

    def kept(self, plan: ShardPlan) -> Tally:
        """What of the shard's tally stays."""
        return self._footer(plan).kept

    def failed(self, plan: ShardPlan) -> list[Chunk]:
        """The ranges of rows with an error, in order."""
        with answers_of(self.manifest.output, response_name(plan.shard)) as parquet:
            status = parquet.read(columns=["status_code"], use_threads=False).column(0)
        sound = pc.is_in(status, pa.array([200, ALREADY_ANSWERED], status.type))
        bad = np.flatnonzero(np.asarray(pc.invert(sound)))
        breaks = [0, *(np.flatnonzero(np.diff(bad) > 1) + 1).tolist(), len(bad)]
        return [
            Chunk(plan.shard.name, int(bad[first]), int(bad[last - 1]) + 1)
            for first, last in pairwise(breaks)
            if last > first
        ]

    def commit_any(self, plan: ShardPlan) -> Tally:
        """As `commit`, and the same for a shard that was taken on meanwhile and has no answers yet."""
        return self.commit(plan) if plan.retry else self.manifest.commit_shard(plan)

    def commit(self, plan: ShardPlan) -> Tally:
        """Replaces the shard's response file by one with the new answers; the shard's tally then.

        Raises OutputError where a failed row has no new answer.
        """
        old = self._footer(plan)
        if old.retry < self.number:
            try:
                self._replace(plan, old)
            except (FileNotFoundError, JobError) as error:
                # Another process may have done it meanwhile; the chunks go when it is done.
                if self._footer(plan).retry < self.number:
                    raise OutputError(f"{plan.shard.name}: {error}") from error
        self.manifest.output.remove_tree(self.manifest.chunk_folder(plan.shard.name, self.number))
        return self._footer(plan).tally

    def _replace(self, plan: ShardPlan, old: Footer) -> None:
        found = self.manifest.chunk_footers(plan.shard.name, self.number)
        footers = {Chunk(f.shard, f.start, f.stop): f for f in found}
        chosen = cover(footers)
        if sum(chunk.rows for chunk in chosen) != old.tally.failed:
            raise OutputError("not every failed row has been answered again")
        footer = _amended(old, [footers[chunk] for chunk in chosen], self.number)

        def write(file: BinaryIO) -> None:
            write_table(file, self._tables(plan, chosen, footer.dimensions), footer)
            if self.manifest.under_way() != self.number or not self.manifest.is_current(plan.shard.name):
                raise OutputError(f"retry {self.number} is over")

        self.manifest.output.overwrite(
            response_name(plan.shard), write, lambda path: check_table(path, footer)
        )

    def _tables(
        self, plan: ShardPlan, chosen: Sequence[Chunk], lengths: tuple[int, ...]
    ) -> Iterator[pa.Table]:
        with self.manifest.output.open_input(response_name(plan.shard)) as file:
            rows = ParquetRows(file, 0)
            for start, stop, chunk in _segments(plan.rows, chosen):
                before = with_vectors(rows.take(start, stop), lengths)
                if chunk is None:
                    yield before
                else:
                    after = self.manifest.table(self.manifest.chunk_name(chunk, self.number))
                    yield _renewed(before, with_vectors(after, lengths))

    def _footer(self, plan: ShardPlan) -> Footer:
        name = response_name(plan.shard)
        try:
            return self.manifest.footer(name)
        except FileNotFoundError:
            raise OutputError(f"{self.manifest.output.url}/{name}: is absent, and can't be retried") from None


def _amended(old: Footer, fresh: Iterable[Footer], number: int) -> Footer:
    tally, lengths = old.kept, set(old.dimensions)
    for footer in fresh:
        tally += footer.tally
        lengths |= set(footer.dimensions)
    return replace(old, tally=tally, dimensions=tuple(sorted(lengths)), retry=number)


def _segments(rows: int, chosen: Iterable[Chunk]) -> Iterator[tuple[int, int, Chunk | None]]:
    """The whole shard in order: ranges that stay, in pieces, and those that `chosen` chunks renew."""
    border = 0
    for chunk in chosen:
        yield from _kept(border, chunk.start)
        yield chunk.start, chunk.stop, chunk
        border = chunk.stop
    yield from _kept(border, rows)


def _kept(start: int, stop: int) -> Iterator[tuple[int, int, None]]:
    for begin in range(start, stop, _ROWS):
        yield begin, min(begin + _ROWS, stop), None


def _renewed(before: pa.Table, after: pa.Table) -> pa.Table:
    """The new answers; a row's attempts add up over its answers."""
    place = after.schema.get_field_index("attempts")
    attempts = pc.add(before.column("attempts"), after.column("attempts"))
    return after.set_column(place, after.schema.field(place), attempts)
