"""A forecast held against what came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.files.storage import Storage
from pipeline.output.records import FORECAST, RESPONSES, SUCCESS, read_record
from pipeline.plan.estimate import Estimate
from pipeline.plan.forecast import Forecast

_TIMES = ("seconds", "cpu_hours", "gpu_hours", "cost")


@dataclass(frozen=True, slots=True)
class Held:
    """One number of a forecast, and what it was in the end."""

    name: str
    forecast: Estimate
    came: float

    @property
    def is_within(self) -> bool:
        return self.forecast.holds(self.came)


def keep_forecast(output: Storage, forecast: Forecast) -> None:
    """Keeps it for the job's record; an earlier one goes."""
    output.replace(FORECAST, json.dumps(forecast.to_dict(), indent=1).encode())


def note_seconds(output: Storage, seconds: float) -> None:
    """Adds the time of a run to what came of the forecast, if there is one: a job may take several runs."""
    record = read_record(output, FORECAST)
    if record:
        record["seconds"] = record.get("seconds", 0.0) + seconds
        output.replace(FORECAST, json.dumps(record, indent=1).encode())


def held_at(output_url: str) -> list[Held]:
    """The numbers of the job at this path or URL; [] where it isn't finished, or had no forecast."""
    output = Storage.at(output_url)
    success = read_record(output, SUCCESS) or {}
    record = success.get("forecast")
    if not record:
        return []
    numbers = Forecast.from_dict(record).numbers
    came = _contents(output, success["totals"]) | _times(numbers, record.get("seconds"))
    return [Held(name, number, came[name]) for name, number in numbers.items() if name in came]


def _contents(output: Storage, totals: Mapping[str, Any]) -> dict[str, float]:
    names = ("rows", "prompt_tokens", "completion_tokens")
    share = totals["cached_tokens"] / totals["prompt_tokens"] if totals["prompt_tokens"] else 0.0
    size = sum(entry.size for entry in output.list(RESPONSES).values())
    return {name: totals[name] for name in names} | {"cached_share": share, "output_bytes": size}


def _times(numbers: Mapping[str, Estimate], seconds: float | None) -> dict[str, float]:
    """Hours and money grow with the seconds."""
    forecast = numbers["seconds"].value
    if seconds is None or not forecast:
        return {}
    return {name: numbers[name].value / forecast * seconds for name in _TIMES if name in numbers}
