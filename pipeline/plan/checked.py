"""Which rows of a job will be refused, and why: all pass the checks that workers make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from pipeline.config import JobConfig
from pipeline.errors import RowError
from pipeline.failures import NO_FAILURES, Failures, Reason
from pipeline.input.shards import CHUNK_ROWS, Chunk, ShardPlan
from pipeline.job.worker import Identity, OpenShard
from pipeline.plan.try_out import TryOut
from pipeline.request.schema import Request

CHECKED_ROWS = 100_000
"""The most rows that are looked at; of larger inputs, those of a seeded sample."""
TASK_ROWS = 1024

Prepare = Callable[[Request | RowError, str], int]
"""The tokens of a request's prompt. Raises RowError where a worker would refuse the request."""
Task = tuple[ShardPlan, Chunk]


@dataclass(frozen=True, slots=True)
class Checked:
    """rows: that were looked at. prompt_tokens: of those that can be served. refused: the others.

    `a + b` is what was found in both.
    """

    rows: int = 0
    prompt_tokens: int = 0
    refused: Failures = NO_FAILURES

    def __add__(self, other: Checked) -> Checked:
        return Checked(
            self.rows + other.rows, self.prompt_tokens + other.prompt_tokens, self.refused + other.refused
        )

    @property
    def refused_rows(self) -> int:
        return sum(rows for _, rows in self.refused.codes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"refused": self.refused.to_dict()}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Checked:
        return cls(**record | {"refused": Failures.from_dict(record["refused"])})


@dataclass(frozen=True)
class RowCheck:
    """Looks at some rows of a shard, in any process: it needs the model's file, but computes nothing.

    on_gpu: whether the job's workers have GPUs. prepare: a stand-in for the model's.
    """

    job: JobConfig
    on_gpu: bool = False
    prepare: Prepare | None = None

    def __call__(self, task: Task) -> Checked:
        plan, rows = task
        prepare = self.prepare or _prepare(self.job.model_dump_json(), self.on_gpu)
        shard = OpenShard(plan, self.job, Identity("", ""), "generate")
        with shard.reader as reader:
            parts = (_part(rows, start) for start in range(rows.start, rows.stop, CHUNK_ROWS))
            return sum(
                (_check(shard.rows(reader.read(part), part), part, prepare) for part in parts), Checked()
            )


def tasks(plans: Sequence[ShardPlan]) -> Iterator[Task]:
    """What a `RowCheck` has to look at: all rows, or a sample in which neighbours stay together."""
    by_name = {plan.shard.name: plan for plan in plans}
    part = TryOut(CHECKED_ROWS, by_chance=True, block=TASK_ROWS).choose(plans)
    for shard, chunks in part.items():
        for chunk in chunks:
            for start in range(chunk.start, chunk.stop, TASK_ROWS):
                yield by_name[shard], Chunk(shard, start, start + TASK_ROWS).cut(chunk)


def _part(rows: Chunk, start: int) -> Chunk:
    return Chunk(rows.shard, start, start + CHUNK_ROWS).cut(rows)


def _check(rows: Sequence[Any], part: Chunk, prepare: Prepare) -> Checked:
    tokens, reasons = 0, []
    for row in rows:
        try:
            tokens += prepare(row.request, row.custom_id)
        except RowError as error:
            reasons.append(Reason(error.code, error.message, 1, part.shard, row.custom_id))
    return Checked(len(rows), tokens, Failures.of(reasons))


@lru_cache(1)
def _prepare(job: str, on_gpu: bool) -> Prepare:
    from pipeline.job.build import build_preparation

    return build_preparation(JobConfig.model_validate_json(job), on_gpu=on_gpu)
