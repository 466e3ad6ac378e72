"""The answers that are committed: files under the output, each whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import NightherdError, OutputError
from pipeline.files.storage import Check, Storage, Write
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.native.kernels import Kernels, system_fingerprint
from pipeline.output.assembly import check_table, cover, dimensions, joined, with_vectors, write_table
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import Footer
from pipeline.output.records import (
    DRAFT,
    KERNELS,
    RECORD,
    REPACK,
    RESPONSES,
    WORK,
    answers_of,
    chunk_folder,
    chunk_name,
    footer_of,
    footers_of,
    response_name,
    write_record,
)
from pipeline.tally import Tally


class _Finished(NightherdError):
    """The work folder is gone: the job is finished."""


class Commits:
    """The chunks and shards of one job in one output folder. Safe for many processes at once: the first
    commit wins."""

    def __init__(self, output: Storage, fingerprint: Fingerprint) -> None:
        self.output = output
        self.fingerprint = fingerprint
        self._digest = fingerprint.digest

    def finished_shards(self) -> dict[str, Tally]:
        """The name and the tally of every shard that is committed, from one listing and the footers."""
        return {name: footer.tally for name, footer in self._responses().items()}

    def finished_chunks(self, shard: str, retry: int = 0) -> dict[Chunk, Tally]:
        """The committed chunks of a shard that isn't committed yet; no row is in two of them."""
        found = {_chunk(f): f.tally for f in self.chunk_footers(shard, retry)}
        return {chunk: found[chunk] for chunk in cover(found)}

    def commit_chunk(self, chunk: Chunk, table: pa.Table, tally: Tally, retry: int = 0) -> bool:
        """Keeps a chunk's answers; False if they, or the whole shard's, were there before.

        retry: the number of the retry that it belongs to; what an earlier run's worker wrote late is
        not taken for its answers.
        """
        footer = Footer(self._digest, chunk.shard, chunk.start, chunk.stop, tally, dimensions(table))
        return self._publish(chunk_name(chunk, retry), lambda: [table], footer)

    def commit_shard(self, plan: ShardPlan) -> Tally:
        """Puts a shard's answers together from its chunks; the tally of what is committed then.

        Raises OutputError where rows are missing. If another process was first, its commit stands.
        """
        footers = {_chunk(f): f for f in self.chunk_footers(plan.shard.name)}
        chosen = cover(footers)
        try:
            if sum(chunk.rows for chunk in chosen) != plan.rows or not chosen:
                raise FileNotFoundError(f"its chunks hold {sum(c.rows for c in chosen)} of {plan.rows} rows")
            self._respond(plan, map(chunk_name, chosen), joined(footers[chunk] for chunk in chosen))
        except FileNotFoundError as error:
            # The chunks go when the shard is committed: somebody else may have done that meanwhile.
            if not self.output.exists(response_name(plan.shard)):
                raise OutputError(f"{plan.shard.name}: {error}") from error
        return self._committed(plan)

    def commit_whole(self, plan: ShardPlan, table: pa.Table, tally: Tally) -> Tally:
        """Commits a shard whose answers are all in `table`, which may be empty; as `commit_shard`."""
        if table.num_rows != plan.rows:
            raise OutputError(f"{plan.shard.name}: {table.num_rows} answers for {plan.rows} rows")
        footer = Footer(self._digest, plan.shard.name, 0, plan.rows, tally, dimensions(table))
        fixed = with_vectors(table, footer.dimensions)
        self._publish(response_name(plan.shard), lambda: [fixed], footer)
        return self._committed(plan)

    def note_repack(self, note: Mapping[str, Any]) -> None:
        """Keeps what a worker knows of its repacked model for _SUCCESS; the first worker's note stands."""
        self._leave(REPACK, lambda file: write_record(file, note))

    def note_kernels(self, kernels: Kernels) -> None:
        """Keeps which kernels a worker uses for _SUCCESS."""
        record = kernels.record | {"system_fingerprint": system_fingerprint(self._digest, kernels.id)}
        self._leave(f"{KERNELS}/{kernels.id}.json", lambda file: write_record(file, record))

    def _responses(self) -> dict[str, Footer]:
        return {footer.shard: footer for footer in self._footers(self.output.list(RESPONSES))}

    def _respond(self, plan: ShardPlan, parts: Iterable[str], footer: Footer) -> None:
        names = list(parts)

        def tables() -> Iterator[pa.Table]:
            return (with_vectors(self.table(name), footer.dimensions) for name in names)

        self._publish(response_name(plan.shard), tables, footer)

    def _publish(self, name: str, tables: Callable[[], Iterable[pa.Table]], footer: Footer) -> bool:
        return self._leave(
            name, lambda file: write_table(file, tables(), footer), lambda path: check_table(path, footer)
        )

    def _leave(self, name: str, write: Write, check: Check | None = None) -> bool:
        """A worker that slept through the end of the job, at whichever step, leaves nothing behind it."""

        def write_if_open(file: BinaryIO) -> None:
            if not self.output.exists(RECORD):
                raise _Finished
            write(file)

        try:
            published = self.output.publish(name, write_if_open, check)
        except _Finished:
            published = False
        if not self.output.exists(RECORD):
            if name.startswith(f"{WORK}/"):
                self.output.remove(name)
            self.output.remove_empty(WORK)
        return published

    def _committed(self, plan: ShardPlan) -> Tally:
        footer = self.footer(response_name(plan.shard))
        if (footer.shard, footer.start, footer.stop) != (plan.shard.name, 0, plan.rows):
            raise OutputError(f"{response_name(plan.shard)}: holds {_chunk(footer)}, not {plan.rows} rows")
        self.output.remove_tree(chunk_folder(plan.shard.name))
        return footer.tally

    def chunk_footers(self, shard: str, retry: int = 0) -> list[Footer]:
        """The footers of a shard's chunks, of overlapping ones as well."""
        names = self.output.list(chunk_folder(shard, retry))
        return self._footers(name for name in names if not name.endswith(DRAFT))

    def _footers(self, names: Iterable[str]) -> list[Footer]:
        return [self._own(name, footer) for name, footer in footers_of(self.output, names).items()]

    def footer(self, name: str) -> Footer:
        """A file's footer. Raises OutputError where it is another job's, FileNotFoundError."""
        return self._own(name, footer_of(self.output, name))

    def _own(self, name: str, footer: Footer) -> Footer:
        if footer.fingerprint != self._digest:
            raise OutputError(f"{self.output.url}/{name}: belongs to another job ({footer.fingerprint})")
        return footer

    def table(self, name: str) -> pa.Table:
        """All of a file's rows; as `answers_of`."""
        with answers_of(self.output, name) as parquet:
            return parquet.read(use_threads=False)


def _chunk(footer: Footer) -> Chunk:
    return Chunk(footer.shard, footer.start, footer.stop)
