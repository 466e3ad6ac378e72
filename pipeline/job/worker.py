"""What a worker does with a chunk: read its rows, answer them, commit them. Plain Python, no Ray."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.answer.answer_columns import Kind
from pipeline.answer.answers import Answers, tally
from pipeline.answer.parsed import Expected
from pipeline.config import JobConfig
from pipeline.errors import InputError, RowError, WorkerError
from pipeline.input.repeats import repeats_of
from pipeline.input.shard_reader import ShardReader, row_reader
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.job.open_commits import OpenCommits
from pipeline.job.under_way import UnderWay, Write
from pipeline.output.answered_ids import AnsweredIds
from pipeline.output.drafts import Drafts
from pipeline.output.manifest import Manifest
from pipeline.pulse import Pulse
from pipeline.request.rows import Row, records
from pipeline.request.schema import GenerationFields
from pipeline.respond.responders import Record, Responder
from pipeline.tally import Tally

# Shards that a worker keeps open; chunks of a few shards come in turn.
_OPEN_SHARDS = 4
# Tokens that an answer may have which only has to show that the worker can give one.
_PROOF_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What answers say of their origin: the model's id, the job's fingerprint, the id of the kernels.

    parsed: what the column `parsed` is made by, where there is one.
    """

    model_id: str
    fingerprint: str
    kernels: str = ""
    parsed: Expected | None = None


class Worker:
    """Answers chunks. `process` may be called from several threads: their rows share the batch."""

    def __init__(
        self,
        job: JobConfig,
        identity: Identity,
        manifest: Manifest,
        responder: Responder,
        notes: tuple[str, ...] = (),
        elsewhere: AnsweredIds | None = None,
    ) -> None:
        """notes: what a person should know of this worker's machine, a line each. elsewhere: the ids that
        other outputs have answers to; rows of these ids are skipped.
        Raises ConfigError where a kept column would have the name of one of the output's."""
        self.notes = notes
        kept = pa.schema([(name, pa.null()) for name in job.output.kept.values()])
        _answers(job, identity, responder.kind, kept)
        self._job = job
        self._identity = identity
        self._manifest = manifest
        self._responder = responder
        self._elsewhere = elsewhere or AnsweredIds()
        self._drafts = Drafts(manifest)
        self._commits = OpenCommits()
        self._under_way: dict[UnderWay, Write] = {}
        self._shards: OrderedDict[str, OpenShard] = OrderedDict()
        self._lock = threading.Lock()

    def process(self, plan: ShardPlan, chunk: Chunk, attempt: int = 1, condemned: bool = False) -> Tally:
        """Commits the chunk's answers and returns what they cost.

        attempt: how often these rows have been tried, this time included. condemned: the rows have
        killed workers, and are answered `worker_crashed` instead of being tried again.
        Raises WorkerError (also after `end`), InputError, StorageError.
        """
        began = time.monotonic()
        shard = self._open(plan)
        table = shard.reader.read(chunk)
        rows = shard.rows(table, chunk)
        most, known = self._job.retry.max_attempts, self._skipped(rows)
        under_way = UnderWay(chunk, plan.retry, rows, self._responder, most, known)
        with self._saved(under_way, shard, table):
            answers = self._condemn(rows, attempt) if condemned else under_way.answer(attempt)
            cost = tally(answers, time.monotonic() - began, plan.shard.name)
            output = shard.table(answers, table)
            with self._commits.one():
                if chunk == plan.whole:
                    self._manifest.commit_whole(plan, output, cost)
                else:
                    self._manifest.commit_chunk(chunk, output, cost, plan.retry)
        return cost

    def prove(self, plan: ShardPlan, chunk: Chunk) -> Tally:
        """Answers rows that have been answered before, to prove that this worker can; commits nothing.

        The answers are short, and drawn by chance, so that none is taken over from equal rows."""
        shard = self._open(plan)
        rows = [_shortened(row) for row in shard.rows(shard.reader.read(chunk), chunk)]
        return tally(self._responder.respond(rows, 0), 0.0)

    def save(self) -> None:
        """Keeps drafts of what is answered of the chunks under way, until `end`. Raises StorageError."""
        with suppress(WorkerError), self._commits.one():
            self._save()

    def _save(self) -> None:
        for under_way, write in list(self._under_way.items()):
            under_way.save(self._drafts, write)

    def end(self) -> None:
        """Keeps drafts a last time. When it returns nothing is kept or committed any more, so that a run that
        ends can count what there is. Raises StorageError."""
        if not self._commits.closed:
            self._commits.close()
            self._save()

    @contextmanager
    def _saved(self, under_way: UnderWay, shard: OpenShard, table: pa.Table) -> Iterator[None]:
        """Inside, `save` keeps drafts of the chunk. They stay where it isn't committed."""
        self._under_way[under_way] = lambda places, answers: shard.table(answers, table.take(places))
        try:
            yield
        finally:
            del self._under_way[under_way]
        under_way.end(self._drafts)

    @property
    def kernels(self) -> str:
        """The id of the kernels that compute this worker's answers; "" where there are none to tell apart."""
        return self._identity.kernels

    def pulse(self) -> Pulse:
        """The worker's life signs."""
        return self._responder.pulse()

    def close(self) -> None:
        self._responder.close()

    def _open(self, plan: ShardPlan) -> OpenShard:
        with self._lock:
            shard = self._shards.get(plan.shard.name)
            if shard is None:
                shard = OpenShard(plan, self._job, self._identity, self._responder.kind)
                self._shards[plan.shard.name] = shard
                if len(self._shards) > _OPEN_SHARDS:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(plan.shard.name)
            return shard

    def _skipped(self, rows: Sequence[Row]) -> dict[int, Record]:
        """What stands for the rows that other outputs have answered, by their places.

        A row without an id of its own has the name of its place, which says nothing of other rows."""
        answers = _answers(self._job, self._identity, self._responder.kind)
        known = self._elsewhere.known([row.custom_id for row in rows])
        found = [place for place, row in enumerate(rows) if row.is_named and known[place]]
        return {place: answers.skipped(rows[place].custom_id) for place in found}

    def _condemn(self, rows: Sequence[Row], attempt: int) -> list[Record]:
        error = RowError(
            "worker_crashed", "the worker died each time that it ran this row, and the row was set aside"
        )
        answers = _answers(self._job, self._identity, self._responder.kind)
        return [answers.error(row.custom_id, error, attempt) for row in rows]


class OpenShard:
    """A shard being read: how its rows become requests, and its answers a table."""

    def __init__(self, plan: ShardPlan, job: JobConfig, identity: Identity, kind: Kind) -> None:
        self._job = job
        self._kept = job.output.kept
        self._identity = identity
        self._kind = kind
        self._row_reader = row_reader(job.request, plan)
        self._repeats = repeats_of(plan)
        self.reader = ShardReader(plan, {*self._row_reader.columns, *self._kept})

    def rows(self, table: pa.Table, chunk: Chunk) -> list[Row]:
        """The chunk's rows as requests, or as the errors that they are answered with.

        Raises InputError where the shard is broken."""
        repeats = self._repeats.within(chunk)
        return [
            self._row_reader.read(record, number, duplicate=number in repeats)
            for number, record in enumerate(records(table, self._row_reader.columns), chunk.start)
        ]

    def table(self, answers: Sequence[Record], table: pa.Table) -> pa.Table:
        """The answers to the rows of `table`, with its columns that are carried along."""
        kept = table.select(list(self._kept)).rename_columns(list(self._kept.values()))
        return _answers(self._job, self._identity, self._kind, kept.schema).table(answers, kept)


def check_input(job: JobConfig, plan: ShardPlan) -> None:
    """Raises InputError or ConfigError where the shard's columns make no request, or lack a kept column."""
    row_reader(job.request, plan)
    there = [*plan.columns, *plan.partition]
    missing = [name for name in job.output.kept if name not in there]
    if missing:
        columns = ", ".join(there) or "none"
        raise InputError(
            f"{plan.shard.name}: output.keep names {', '.join(missing)}, but its columns are {columns}"
        )


def _answers(job: JobConfig, identity: Identity, kind: Kind, kept: pa.Schema | None = None) -> Answers:
    kept = kept or pa.schema([])
    return Answers(
        identity.model_id,
        identity.fingerprint,
        kept,
        kind,
        kernels=identity.kernels,
        parsed=identity.parsed,
        vectors=job.output.embedding,
    )


def _shortened(row: Row) -> Row:
    request = row.request
    if not isinstance(request, GenerationFields):
        return row
    short = {"max_tokens": min(request.max_tokens, _PROOF_TOKENS), "temperature": 1.0, "seed": None}
    return replace(row, request=request.model_copy(update=short))
