"""A forecast for people, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.filesize import decimal

from pipeline.output.records import TRY_OUT
from pipeline.plan.estimate import LEVEL, Estimate
from pipeline.plan.forecast import Forecast
from pipeline.plan.held import Held
from pipeline.report.progress import span

TITLES = {
    "rows": "rows",
    "prompt_tokens": "tokens in",
    "cached_share": "of them from the cache",
    "completion_tokens": "tokens out",
    "output_bytes": "size of the output",
    "seconds": "time",
    "cpu_hours": "CPU hours",
    "gpu_hours": "GPU hours",
    "cost": "cost",
}
"""What people call the numbers of a forecast."""


def forecast_text(forecast: Forecast) -> str:
    """All that a forecast says."""
    return "\n".join(_lines(forecast))


def in_words(name: str, number: Estimate) -> str:
    """A number with its interval: "3 min 20 s (3 min 05 s to 3 min 41 s)"."""
    value = shown(name, number.value)
    if number.low == number.high:
        return value
    return f"{value} ({_interval(name, number)})"


def _interval(name: str, number: Estimate) -> str:
    return f"{shown(name, number.low)} to {shown(name, number.high)}"


def shown(name: str, value: float) -> str:
    """One value of a number."""
    if name == "seconds":
        return span(value)
    if name == "output_bytes":
        return decimal(int(value))
    if name == "cached_share":
        return f"{value:.0%}"
    return f"{value:,.2f}" if name in ("cpu_hours", "gpu_hours", "cost") else f"{value:,.0f}"


def held_lines(held: Sequence[Held]) -> Iterator[str]:
    """A forecast against what came, in a line; none where there was no forecast."""
    by_name = {number.name: number for number in held}
    told = [
        f"{TITLES[name]} {shown(name, by_name[name].came)}, forecast {in_words(name, by_name[name].forecast)}"
        for name in ("seconds", "completion_tokens")
        if name in by_name and by_name[name].came
    ]
    if told:
        yield f"against the forecast: {'; '.join(told)}"


def held_rows(held: Sequence[Held]) -> list[dict[str, str]]:
    """The same as a table for the report."""
    return [
        {
            "name": TITLES[number.name],
            "forecast": shown(number.name, number.forecast.value),
            "interval": _interval(number.name, number.forecast),
            "came": shown(number.name, number.came),
            "within": "yes" if number.is_within else "no",
        }
        for number in sorted(held, key=lambda number: list(TITLES).index(number.name))
    ]


def _lines(forecast: Forecast) -> Iterator[str]:
    rows = int(forecast.numbers["rows"].value)
    yield f"{forecast.name}: {rows:,} rows, {forecast.rows_left:,} of them left to answer"
    for name, title in TITLES.items():
        if name != "rows" and name in forecast.numbers:
            yield f"  {title:<24}{in_words(name, forecast.numbers[name])}"
    workers = f"{forecast.workers} worker{'' if forecast.workers == 1 else 's'}"
    yield (
        f"from a sample of {forecast.sampled:,} rows; the numbers lie in their intervals with {LEVEL:.0%}; "
        f"time and hours are those of what is left, with {workers}"
    )
    yield _refused(forecast, rows)
    yield from (f"  {line}" for line in forecast.checked.refused.lines())
    yield f"the sample's answers are kept: {forecast.output}/{TRY_OUT}; nightherd run does the rest"


def _refused(forecast: Forecast, rows: int) -> str:
    checked = forecast.checked
    looked = "all were checked" if checked.rows == rows else f"a sample of {checked.rows:,} was checked"
    if not checked.refused_rows:
        return f"no row will be refused ({looked})"
    return f"{checked.refused_rows:,} of {checked.rows:,} rows will be refused ({looked}):"
