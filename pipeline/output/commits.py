"""The answers that are committed: files under the output, each whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import NightherdError, OutputError
from pipeline.files.storage import Check, Entry, Storage, Write
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
    SUCCESS,
    WORK,
    answers_of,
    chunk_folder,
    footer_of,
    footers_of,
    read_record,
    response_name,
    write_record,
)
from pipeline.tally import Tally


class _Over(NightherdError):
    """The work folder is gone, and the job finished; or the job has another version of the shard by now."""


class Commits:
    """The chunks and shards of one job in one output folder. Safe for many processes at once: the first
    commit wins."""

    def __init__(self, output: Storage, fingerprint: Fingerprint) -> None:
        self.output = output
        self.fingerprint = fingerprint
        self._digest = fingerprint.digest
        self._read: tuple[Entry, Fingerprint] | None = None

    def chunk_folder(self, shard: str, retry: int = 0) -> str:
        """Where a shard's chunks lie.

        Each version of a shard has a folder of its own: what a worker that slept through a change writes
        there late is not taken for answers to the new version."""
        return chunk_folder(shard, self._source(shard), retry)

    def chunk_name(self, chunk: Chunk, retry: int = 0) -> str:
        """A committed chunk's file. retry: the number of the retry that it belongs to."""
        return f"{self.chunk_folder(chunk.shard, retry)}/{chunk.start}-{chunk.stop}.parquet"

    def draft_name(self, chunk: Chunk, retry: int = 0) -> str:
        """The file of what is answered of a chunk under way."""
        return f"{self.chunk_folder(chunk.shard, retry)}/{chunk.start}-{chunk.stop}{DRAFT}"

    def is_current(self, shard: str) -> bool:
        """Whether the job under way has the shard in this version."""
        try:
            return self._recorded_job().source(shard) == self._source(shard)
        except FileNotFoundError:
            return False

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
        footer = self._footer_of(chunk, tally, dimensions(table))
        return self._publish(self.chunk_name(chunk, retry), lambda: [table], footer)

    def commit_shard(self, plan: ShardPlan) -> Tally:
        """Puts a shard's answers together from its chunks; the tally of what is committed then.

        Raises OutputError where rows are missing. If another process was first, its commit stands.
        """
        footers = {_chunk(f): f for f in self.chunk_footers(plan.shard.name)}
        chosen = cover(footers)
        try:
            if sum(chunk.rows for chunk in chosen) != plan.rows or not chosen:
                raise FileNotFoundError(f"its chunks hold {sum(c.rows for c in chosen)} of {plan.rows} rows")
            self._respond(plan, map(self.chunk_name, chosen), joined(footers[chunk] for chunk in chosen))
        except FileNotFoundError as error:
            # The chunks go when the shard is committed: somebody else may have done that meanwhile.
            if self.answered(plan) is None:
                raise OutputError(f"{plan.shard.name}: {error}") from error
        return self._committed(plan)

    def commit_whole(self, plan: ShardPlan, table: pa.Table, tally: Tally) -> Tally:
        """Commits a shard whose answers are all in `table`, which may be empty; as `commit_shard`."""
        if table.num_rows != plan.rows:
            raise OutputError(f"{plan.shard.name}: {table.num_rows} answers for {plan.rows} rows")
        footer = self._footer_of(Chunk(plan.shard.name, 0, plan.rows), tally, dimensions(table))
        fixed = with_vectors(table, footer.dimensions)
        self._publish(response_name(plan.shard), lambda: [fixed], footer)
        return self._committed(plan)

    def answered(self, plan: ShardPlan) -> Tally | None:
        """The tally of a shard that is committed in this version; None where it isn't."""
        try:
            footer = self.footer(response_name(plan.shard))
        except FileNotFoundError:
            return None
        return footer.tally if self._is_own_version(footer) else None

    def note_repack(self, note: Mapping[str, Any]) -> None:
        """Keeps what a worker knows of its repacked model for _SUCCESS; the first worker's note stands."""
        self._leave(REPACK, lambda file: write_record(file, note))

    def note_kernels(self, kernels: Kernels) -> None:
        """Keeps which kernels a worker uses for _SUCCESS."""
        record = kernels.record | {"system_fingerprint": system_fingerprint(self._digest, kernels.id)}
        self._leave(f"{KERNELS}/{kernels.id}.json", lambda file: write_record(file, record))

    def _responses(self) -> dict[str, Footer]:
        """The footers of the job's shards that are committed, each in the version that the job has."""
        found = self._footers(self.output.list(RESPONSES))
        return {footer.shard: footer for footer in found if self._is_own_version(footer)}

    def _respond(self, plan: ShardPlan, parts: Iterable[str], footer: Footer) -> None:
        names = list(parts)

        def tables() -> Iterator[pa.Table]:
            return (with_vectors(self.table(name), footer.dimensions) for name in names)

        self._publish(response_name(plan.shard), tables, footer)

    def _publish(self, name: str, tables: Callable[[], Iterable[pa.Table]], footer: Footer) -> bool:
        def write(file: BinaryIO) -> None:
            write_table(file, tables(), footer)

        def check(path: Path) -> None:
            check_table(path, footer)

        shard = footer.shard if name == response_name(footer.shard) else None
        published = self._leave(name, write, check, shard)
        if shard and not published and self._is_outdated(name):
            # Answers to another version of the shard, that its change left behind.
            published = self._leave(name, write, check, shard, over=True)
        return published

    def _leave(
        self,
        name: str,
        write: Write,
        check: Check | None = None,
        shard: str | None = None,
        over: bool = False,
    ) -> bool:
        """A worker that slept through the end of the job, or a change of its shard, at whichever step, leaves
        nothing behind it. shard: whose response file it is. over: another file of that name may be there."""

        def is_open() -> bool:
            return self.is_current(shard) if shard else self.output.exists(RECORD)

        def write_if_open(file: BinaryIO) -> None:
            if not is_open():
                raise _Over
            write(file)

        published = False
        with suppress(_Over):
            if over:
                self.output.overwrite(name, write_if_open, check)
            published = over or self.output.publish(name, write_if_open, check)
        if not is_open():
            self._take_back(name, shard)
        return published

    def _take_back(self, name: str, shard: str | None) -> None:
        is_strange = shard and not self._is_known(shard) and not self._is_outdated(name)
        if is_strange or name.startswith(f"{WORK}/"):
            self.output.remove(name)
        self.output.remove_empty(WORK)

    def _is_known(self, shard: str) -> bool:
        """Whether the job, under way or finished, has the shard, in whatever version."""
        record = read_record(self.output, RECORD) or read_record(self.output, SUCCESS)
        return record is None or Fingerprint.recorded(record).source(shard) is not None

    def _is_outdated(self, name: str) -> bool:
        """Whether a response file is there that belongs to another version of its shard."""
        try:
            return not self._is_own_version(self.footer(name))
        except FileNotFoundError:
            return False

    def _is_own_version(self, footer: Footer) -> bool:
        return footer.source == self.fingerprint.source(footer.shard)

    def _source(self, shard: str) -> str:
        return self.fingerprint.source(shard) or ""

    def _recorded_job(self) -> Fingerprint:
        """What the record says of the job under way; read again when it has changed. FileNotFoundError."""
        entry = self.output.entry(RECORD)
        if self._read is None or self._read[0] != entry:
            record = read_record(self.output, RECORD)
            if record is None:
                raise FileNotFoundError(RECORD)
            self._read = entry, Fingerprint.recorded(record)
        return self._read[1]

    def _footer_of(self, chunk: Chunk, tally: Tally, lengths: tuple[int, ...]) -> Footer:
        source = self._source(chunk.shard)
        return Footer(self._digest, chunk.shard, chunk.start, chunk.stop, tally, lengths, source=source)

    def _committed(self, plan: ShardPlan) -> Tally:
        footer = self.footer(response_name(plan.shard))
        if not self._is_own_version(footer):
            raise OutputError(
                f"{response_name(plan.shard)}: {plan.shard.name} has changed, and another command has begun "
                "to answer the new version"
            )
        if (footer.shard, footer.start, footer.stop) != (plan.shard.name, 0, plan.rows):
            raise OutputError(f"{response_name(plan.shard)}: holds {_chunk(footer)}, not {plan.rows} rows")
        self.output.remove_tree(self.chunk_folder(plan.shard.name))
        return footer.tally

    def chunk_footers(self, shard: str, retry: int = 0) -> list[Footer]:
        """The footers of a shard's chunks, of overlapping ones as well."""
        names = self.output.list(self.chunk_folder(shard, retry))
        found = self._footers(name for name in names if not name.endswith(DRAFT))
        return [footer for footer in found if self._is_own_version(footer)]

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
