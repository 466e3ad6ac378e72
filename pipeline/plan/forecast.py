"""What a job will need: rows, tokens, time, machines' hours, bytes and money, each with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.plan.blocks import Amounts, Blocks
from pipeline.plan.checked import Checked
from pipeline.plan.estimate import LEVEL, Bootstrap, Estimate
from pipeline.plan.pace import Pace
from pipeline.plan.try_out import SEED

MACHINE_SHARE = 0.05
"""By how much the interval of time is wider: the same work takes a machine now more, now less."""
_SIZE_SHARE = 0.1
"""By how much the interval of the output's size is wider: how well rows compress depends on their number."""
_FOOTER_BYTES = 8_000
"""Of a response file, beside its rows."""
_ROW_TOKENS = 8.0
"""What a row costs beside its tokens, in tokens of a prompt."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The job's workers. cpus, gpus: of each. price: of an hour of the cluster, None where not given."""

    workers: int
    cpus: float
    gpus: float
    price: float | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """A job's forecast. rows_left: those that have still to be answered. workers: that will do it.

    numbers: by name. `rows`, tokens and bytes are the whole job's; `seconds`, the hours and `cost` are those
        of the run that does what is left.
    sampled: how many rows the numbers come from. checked: what was found in the input before.
    """

    name: str
    output: str
    rows_left: int
    workers: int
    numbers: Mapping[str, Estimate]
    sampled: int
    checked: Checked

    @classmethod
    def of(
        cls,
        name: str,
        output: str,
        rows: tuple[int, int, int],
        blocks: Blocks,
        pace: Pace,
        checked: Checked,
        crew: Crew,
    ) -> Forecast:
        """rows: of the job, those of them that are left, and its shards."""
        total, left, shards = rows
        bootstrap = Bootstrap(blocks.rows)
        numbers = _contents(bootstrap, blocks, checked, total, shards)
        numbers |= _times(bootstrap.per_row(_costs(blocks, pace)), pace, left, crew)
        return cls(name, output, left, crew.workers, numbers, int(blocks.rows.sum()), checked)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for programs and for the output's record."""
        return {
            "name": self.name,
            "output": self.output,
            "rows_left": self.rows_left,
            "workers": self.workers,
            "interval": LEVEL,
            "forecast": {name: number.to_dict() for name, number in self.numbers.items()},
            "sample": {"rows": self.sampled, "seed": SEED},
            "checked": self.checked.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Forecast:
        """The inverse of `to_dict`."""
        numbers = {name: Estimate.from_dict(number) for name, number in record["forecast"].items()}
        return cls(
            record["name"],
            record["output"],
            record["rows_left"],
            record["workers"],
            numbers,
            record["sample"]["rows"],
            Checked.from_dict(record["checked"]),
        )


def _contents(
    bootstrap: Bootstrap, blocks: Blocks, checked: Checked, rows: int, shards: int
) -> dict[str, Estimate]:
    counted = checked.rows == rows
    prompts = bootstrap.per_row(blocks.prompt_tokens).scaled(rows)
    footers = shards * _FOOTER_BYTES
    return {
        "rows": Estimate.known(rows),
        "prompt_tokens": Estimate.known(checked.prompt_tokens) if counted else prompts,
        "cached_share": bootstrap.ratio(blocks.cached_tokens, blocks.prompt_tokens),
        "completion_tokens": bootstrap.per_row(blocks.completion_tokens).scaled(rows),
        "output_bytes": bootstrap.per_row(blocks.size).scaled(rows).plus(footers).wider(_SIZE_SHARE),
    }


def _times(row_cost: Estimate, pace: Pace, left: int, crew: Crew) -> dict[str, Estimate]:
    work = row_cost.scaled(left / crew.workers)
    seconds = work.plus(pace.once(crew.workers)).wider(MACHINE_SHARE)
    hours = seconds.scaled(crew.workers / 3600)
    found = {"seconds": seconds, "cpu_hours": hours.scaled(crew.cpus), "gpu_hours": hours.scaled(crew.gpus)}
    if not crew.gpus:
        del found["gpu_hours"]
    if crew.price is not None:
        found["cost"] = seconds.scaled(crew.price / 3600)
    return found


def _costs(blocks: Blocks, pace: Pace) -> Amounts:
    """Seconds of each block on one worker with all its slots taken: they add up to what was measured.

    What isn't known to go into generated tokens goes into those of prompts that had to be computed.
    """
    total = pace.row_seconds * blocks.rows.sum()
    generated = pace.token_seconds * blocks.completion_tokens
    if generated.sum() > total:
        generated *= total / generated.sum()
    computed = blocks.prompt_tokens - blocks.cached_tokens + _ROW_TOKENS * blocks.rows
    if not pace.token_seconds:
        computed += blocks.completion_tokens
    return np.asarray(generated + (total - generated.sum()) * computed / computed.sum())
