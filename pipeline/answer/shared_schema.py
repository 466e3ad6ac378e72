"""Whether the rows of a job share one schema, by looking at some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.answer.parsed import Expected
from pipeline.config import JobConfig
from pipeline.errors import ConfigError, RowError
from pipeline.input.shard_reader import ShardReader, row_reader
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.request.rows import records
from pipeline.request.schema import Request

COLUMN = "parsed"
LOOKED_SHARDS = 8
LOOKED_ROWS = 16
"""First rows that are read of each shard that is looked into. Reading all would hold up a large job."""


def shared_schema(job: JobConfig, plans: Sequence[ShardPlan]) -> Expected | None:
    """What the answers of the job's rows are; None where the output has no column `parsed`.

    Rows that are wrong have no say. Raises ConfigError where output.parsed is true, but there is no one
    schema, or it has no type in Arrow.
    """
    wanted = job.output.parsed
    if wanted is False or (wanted == "auto" and COLUMN in job.output.keep):
        return None
    found = [Expected.of(request) for request in _requests(job, plans)]
    shared = found[0] if found and all(other == found[0] for other in found) else None
    if shared is None:
        if wanted is True and found:
            raise ConfigError(
                "output.parsed: its rows have no schema in common: they need one response_format with a JSON "
                "schema, one guided_choice, or tools with one function, best in request.defaults; or set auto"
            )
        return None
    if reason := shared.answer_type.text:
        if wanted is True:
            raise ConfigError(
                f"output.parsed: the rows' schema has no type in Arrow: {reason}; the column text has the "
                "answers as JSON; set output.parsed to auto or false"
            )
        return None
    return shared


def _requests(job: JobConfig, plans: Sequence[ShardPlan]) -> Iterator[Request]:
    filled = [plan for plan in plans if plan.rows]
    step = max(1, -(-len(filled) // LOOKED_SHARDS))
    for plan in filled[::step]:
        rows = row_reader(job.request, plan)
        chunk = Chunk(plan.shard.name, 0, min(plan.rows, LOOKED_ROWS))
        with ShardReader(plan, rows.columns) as reader:
            for number, record in enumerate(records(reader.read(chunk), rows.columns)):
                request = rows.read(record, number).request
                if not isinstance(request, RowError):
                    yield request
