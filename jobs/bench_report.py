"""What a task's rounds come to: a table for people, and figures for the last line."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from bench_tasks import Result, Task
from rich.console import Console
from rich.table import Table

Round = dict[str, Result]
Figures = dict[str, Any]


def report(task: Task, rounds: list[Round], baselines: Sequence[str]) -> dict[str, Figures]:
    """Prints the table of `task`; the figures of each contender, with its ratio to each of `baselines`."""
    figures = {name: _figures(task, rounds, name, baselines) for name in rounds[0]}
    table = Table(title=f"{task.name}: {len(task.bodies)} rows, {len(rounds)} rounds", title_justify="left")
    ratios = [f"x {name}" for name in baselines]
    for column in ("", f"{task.unit}: median", "min", "max", *ratios, "outside model", "keeps to schema"):
        table.add_column(column, justify="left" if not column else "right")
    for name, figure in figures.items():
        table.add_row(name, *_cells(figure))
    Console(width=120).print(table)
    return figures


def _figures(task: Task, rounds: list[Round], name: str, baselines: Sequence[str]) -> Figures:
    speeds = [results[name].speed(task.unit) for results in rounds]
    outside = [results[name].outside for results in rounds if results[name].outside is not None]
    agreement = [results[name].agreement for results in rounds if results[name].agreement is not None]
    return {
        "unit": task.unit,
        "median": statistics.median(speeds),
        "min": min(speeds),
        "max": max(speeds),
        "ratios": {other: _ratio(task, rounds, name, other) for other in baselines},
        "outside": statistics.median(outside) if outside else None,
        "agreement": min(agreement) if agreement else None,
        "tokens_out": rounds[-1][name].completion_tokens,
    }


def _ratio(task: Task, rounds: list[Round], name: str, other: str) -> float:
    """The median of the ratios round by round: what slows a whole round leaves it as it is."""
    return statistics.median(
        results[name].speed(task.unit) / results[other].speed(task.unit) for results in rounds
    )


def _cells(figure: Figures) -> list[str]:
    speeds = [f"{figure[key]:.1f}" for key in ("median", "min", "max")]
    ratios = [f"{ratio:.2f}" for ratio in figure["ratios"].values()]
    shares = ["" if figure[key] is None else f"{figure[key]:.1%}" for key in ("outside", "agreement")]
    return [*speeds, *ratios, *shares]
