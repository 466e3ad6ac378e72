"""What of a job is done: the commits are files under the output, each whole or absent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import NightherdError, OutputError
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.records import (
    PROGRESS,
    RECORD,
    REPACK,
    RESPONSES,
    SUCCESS,
    USAGE,
    WORK,
    answers_of,
    chunk_folder,
    chunk_name,
    footer_of,
    read_record,
    response_name,
    usage_bytes,
    versions,
    write_record,
)
from pipeline.shard.assembly import check_table, cover, dimensions, joined, with_vectors, write_table
from pipeline.shard.footer import Footer
from pipeline.shard.parquet import footer_digest
from pipeline.shard.shards import Chunk, ShardPlan
from pipeline.storage import ASIDE, Check, Storage, Write
from pipeline.tally import Tally

_READERS = 16
_SHOWN = 10


class _Finished(NightherdError):
    """The work folder is gone: the job is finished."""


class Manifest:
    """The commits of one job in one output folder. Safe for many processes at once: the first commit wins.

    about: facts for the records that results don't depend on (name, input, model ...), JSON values.
    retry: the number of the retry that was found under way, or begun; 0 for the job's first run.
    """

    def __init__(
        self, output: Storage, fingerprint: Fingerprint, about: Mapping[str, Any] | None = None
    ) -> None:
        self.output = output
        self.fingerprint = fingerprint
        self._digest = fingerprint.digest
        self._about = dict(about or {})
        self.retry = 0

    def begin(self) -> bool:
        """Claims the output for this job; True if the job is already finished there.

        Raises OutputError, which names every difference, where the output is another job's.
        """
        record = self._recorded(SUCCESS)
        if record:
            self._compare(record)
            self.output.remove_tree(WORK)
            return True
        if not self._recorded(RECORD):
            self._write(RECORD, self._record() | {"retry": self._found()})
        begun = self._recorded(RECORD)
        if begun is None:  # Another driver has just finished the job.
            return self.begin()
        self._compare(begun)
        self.retry = _retry(begun)
        return False

    def reopen(self) -> int:
        """Makes a finished job unfinished, so that failed rows are tried again; the number of this retry.

        A retry that was stopped keeps its number. Raises OutputError where there is no finished job.
        """
        finished, begun = self._recorded(SUCCESS), self._recorded(RECORD)
        if finished:
            self._compare(finished)
            self._whole()
            self.retry = _retry(finished) + 1
            # In this order: at every moment one of the two is there.
            record = self._record() | {"retry": self.retry}
            self.output.overwrite(RECORD, lambda file: write_record(file, record))
            self.output.remove(SUCCESS)
            return self.retry
        if not begun or not _retry(begun):
            raise OutputError(f"output {self.output.url}: the job isn't finished: nightherd run ends it")
        self._compare(begun)
        self.retry = _retry(begun)
        return self.retry

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

    def finish(self, plans: Sequence[ShardPlan]) -> Tally:
        """Writes usage.parquet, then _SUCCESS, then clears the work folder; the job's totals.

        A job that is finished already stays as it is. Raises OutputError where a shard is missing, or has
        other rows than its input, or is unknown, and where another command has begun to retry the job.
        """
        finished = self._whole()
        if not self._recorded(SUCCESS):
            self._succeed({plan.shard.name: finished[plan.shard.name] for plan in plans})
        self.output.remove_tree(WORK)
        return sum((footer.tally for footer in finished.values()), Tally())

    def _succeed(self, finished: Mapping[str, Footer]) -> None:
        if self.under_way() not in (None, self.retry):
            raise OutputError(f"output {self.output.url}: its failed rows are being retried by now")
        tallies = {name: footer.tally for name, footer in finished.items()}
        self.output.replace(USAGE, usage_bytes(tallies))
        done = {
            "finished": time.time(),
            "shards": {name: tally.rows for name, tally in tallies.items()},
            "totals": sum(tallies.values(), Tally()).to_dict(),
            "digests": self._digests(tallies),
            "retry": max([self.retry, *(footer.retry for footer in finished.values())]),
        }
        if note := self._recorded(REPACK):
            done["cpu_repack"] = note
        self._write(SUCCESS, self._record() | done)

    def _digests(self, shards: Iterable[str]) -> dict[str, str]:
        """What tells each response file from any other that somebody may put in its place."""

        def digest(shard: str) -> tuple[str, str]:
            with self.output.open_input(response_name(shard)) as file:
                return shard, footer_digest(file)

        with ThreadPoolExecutor(_READERS) as pool:
            return dict(pool.map(digest, shards))

    def under_way(self) -> int | None:
        """The number of the retry under way, 0 for the job's first run; None where nothing is."""
        begun = self._recorded(RECORD)
        return None if begun is None else _retry(begun)

    def _whole(self) -> dict[str, Footer]:
        """The footers of all shards. Raises OutputError where one is missing, unknown, or not its input's."""
        found = self._responses()
        if wrong := self._wrong(found):
            raise OutputError(
                f"output {self.output.url}: not every shard is committed: {', '.join(wrong[:_SHOWN])}; where "
                f"{SUCCESS} says otherwise, remove it, and nightherd run does what is missing"
            )
        return found

    def _wrong(self, found: Mapping[str, Footer]) -> list[str]:
        rows = {name: shard["rows"] for name, shard in self.fingerprint.record["input"].items()}
        has = {name: footer.tally.rows for name, footer in found.items()}
        names = sorted(rows.keys() | has.keys())
        return [f"{n} ({has.get(n)} of {rows.get(n)} rows)" for n in names if has.get(n) != rows.get(n)]

    def _responses(self) -> dict[str, Footer]:
        return {footer.shard: footer for footer in self._footers(self.output.list(RESPONSES))}

    def _record(self) -> dict[str, Any]:
        facts = {"fingerprint": self._digest, "record": self.fingerprint.record, "versions": versions()}
        return facts | {
            "model_sha256": self.fingerprint.record.get("model", {}).get("sha256"),
            "about": self._about,
        }

    def _write(self, name: str, record: Mapping[str, Any]) -> None:
        self.output.publish(name, lambda file: write_record(file, record))

    def _recorded(self, name: str) -> dict[str, Any] | None:
        return read_record(self.output, name)

    def _compare(self, record: Mapping[str, Any]) -> None:
        if record.get("fingerprint") == self._digest:
            return
        lines = self.fingerprint.differences(Fingerprint(record.get("record", {})))
        more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise OutputError(
            "\n  ".join(
                [
                    f"output {self.output.url} was begun with other settings, another model or other input; "
                    "choose another output, or restore what differs:",
                    *lines[:_SHOWN],
                    *more,
                ]
            )
        )

    def _found(self) -> int:
        """The number of the retry to go on with, as far as what lies there without a record tells.

        Raises OutputError where that is anything but this job's answers."""
        names = [name for name in self.output.list() if not name.startswith((".", f"{ASIDE}/"))]
        own = [n for n in names if n.startswith((f"{RESPONSES}/", f"{WORK}/")) and n.endswith(".parquet")]
        known = {*own, PROGRESS, RECORD, REPACK, *((USAGE, SUCCESS) if own else ())}
        if strangers := [name for name in names if name not in known]:
            raise OutputError(
                f"output {self.output.url} holds {strangers[0]}, but no record of a job; "
                "choose an empty folder"
            )
        self._footers(own)
        found = self._responses()
        # Where shards are missing, the job's first run has to go on; a retry is of whole jobs.
        return 0 if self._wrong(found) else max((footer.retry for footer in found.values()), default=0)

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
        return self._footers(self.output.list(chunk_folder(shard, retry)))

    def _footers(self, names: Iterable[str]) -> list[Footer]:
        with ThreadPoolExecutor(_READERS) as pool:
            return [footer for footer in pool.map(self._footer_if_there, names) if footer]

    def _footer_if_there(self, name: str) -> Footer | None:
        try:
            return self.footer(name)
        except FileNotFoundError:
            return None

    def footer(self, name: str) -> Footer:
        """A file's footer. Raises OutputError where it is another job's, FileNotFoundError."""
        footer = footer_of(self.output, name)
        if footer.fingerprint != self._digest:
            raise OutputError(f"{self.output.url}/{name}: belongs to another job ({footer.fingerprint})")
        return footer

    def table(self, name: str) -> pa.Table:
        """All of a file's rows; as `answers_of`."""
        with answers_of(self.output, name) as parquet:
            return parquet.read(use_threads=False)


def _retry(record: Mapping[str, Any]) -> int:
    return int(record.get("retry", 0))


def _chunk(footer: Footer) -> Chunk:
    return Chunk(footer.shard, footer.start, footer.stop)
