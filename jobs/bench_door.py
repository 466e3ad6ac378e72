"""The door of `nightherd serve` beside llama-server and the engine alone: same model, cores and requests.

    pip install -e ".[bench,serve]"
    python jobs/bench_door.py
    python jobs/bench_door.py --llama-server /path/to/llama-server --rounds 5
    python jobs/bench_door.py --batch          # also the first token of chats while a batch runs

Each round asks every contender in turn, by as many clients as there are slots, first for streams, then for
whole answers; no round repeats another's prompts. The engine alone is what the door stands before: the same
service, asked by the same number of callers in its own process. The table has medians over the rounds, ratios
are medians of the ratios round by round. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import MODEL
from bench_door_batch import batch_figures
from bench_door_client import ask_all
from bench_door_contenders import Contender, EngineAlone, Run, peer, served
from bench_machine import busy, describe
from bench_process import Apart
from bench_tasks import Task, make_task
from rich.console import Console
from rich.table import Table

Rounds = list[dict[str, Run]]
NIGHTHERD, LLAMA, ALONE = "nightherd serve", "llama-server", "engine alone"
# What is reported of a run, and in which unit a person reads it.
MEASURES: dict[str, tuple[str, float]] = {
    "tokens": ("tokens/s", 1),
    "requests": ("requests/s", 1),
    "first_p50": ("first token p50, ms", 1e3),
    "first_p95": ("p95", 1e3),
    "between_p50": ("between tokens p50, ms", 1e3),
    "between_p95": ("p95", 1e3),
    "cpu": ("CPU s per 1,000 tokens", 1),
}


def main() -> None:
    options = _options()
    machine = describe(options)
    for name, value in machine.items():
        print(f"{name}: {value}")
    warnings = [warning] if (warning := busy()) else []
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        door = served(options, stack)
        streamed, whole = _measure(options, door, stack)
        figures["streamed"] = _report("streams", streamed)
        figures["whole"] = _report("whole answers", whole)
        if options.batch:
            figures["batch"] = batch_figures(door, options.batch_rows, options.chats)
    for warning in warnings:
        print(f"WARNING: {warning}")
    print(json.dumps({"machine": machine, "warnings": warnings, "figures": figures}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64, help="requests of a run")
    parser.add_argument("--slots", type=int, default=16, help="and clients")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", default=MODEL, help="a GGUF, as nightherd takes it")
    parser.add_argument("--task", default="generation", choices=["generation", "labeling", "documents"])
    parser.add_argument("--no-peer", action="store_true", help="without llama-server")
    parser.add_argument("--llama-server", help="a native binary instead of the package xllamacpp")
    parser.add_argument("--flags", help="what it and llama-cpp-python were compiled with, for the record")
    parser.add_argument("--peer-python", help="the interpreter that has xllamacpp; this one by default")
    parser.add_argument("--batch", action="store_true", help="chats beside a batch, too")
    parser.add_argument("--batch-rows", type=int, default=2000)
    parser.add_argument("--chats", type=int, default=40)
    return parser.parse_args()


def _measure(options: argparse.Namespace, door: Contender, stack: ExitStack) -> tuple[Rounds, Rounds]:
    """The rounds with streams, and those with whole answers."""
    contenders = {NIGHTHERD: door}
    if not options.no_peer:
        contenders[LLAMA] = peer(options, stack)
    alone = Apart(EngineAlone, options.model, options.slots, options.threads)
    stack.callback(alone.close)
    parts = (make_task(options.task, options.rows, part) for part in range(2 * options.rounds + 1))

    def round(task: Task, *, stream: bool) -> dict[str, Run]:
        runs = {name: _run(other, task, options.slots, stream=stream) for name, other in contenders.items()}
        return runs | {ALONE: alone.run(task, stream)[0]}

    round(next(parts).first(options.slots), stream=True)  # A warm-up.
    rounds = [
        (round(next(parts), stream=True), round(next(parts), stream=False)) for _ in range(options.rounds)
    ]
    return [streamed for streamed, _ in rounds], [whole for _, whole in rounds]


def _run(contender: Contender, task: Task, clients: int, *, stream: bool) -> Run:
    before = contender.cpu_seconds()
    answers = ask_all(contender.address, task.url, task.bodies, clients, stream=stream)
    return Run.of(answers, contender.cpu_seconds() - before)


def _report(title: str, rounds: Rounds) -> dict[str, Any]:
    """Prints a table; the figures of each contender, and its ratios to the others."""
    figures = {name: _figures(rounds, name) for name in rounds[0]}
    columns = [name for name in MEASURES if figures[NIGHTHERD][name] is not None]
    table = Table(title=f"{title}, {len(rounds)} rounds", title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(MEASURES[name][0], justify="right")
    for name, found in figures.items():
        table.add_row(name, *(_cell(found[key], MEASURES[key][1]) for key in columns))
    for other, ratios in figures[NIGHTHERD]["ratios"].items():
        table.add_row(f"{NIGHTHERD} / {other}", *(_cell(ratios[key], 1, 3) for key in columns))
    Console(width=140).print(table)
    return figures


def _figures(rounds: Rounds, name: str) -> dict[str, Any]:
    medians = {key: _median(lambda runs: runs[name].measures[key], rounds) for key in MEASURES}  # noqa: B023
    return medians | {"ratios": {other: _ratios(rounds, name, other) for other in rounds[0] if other != name}}


def _ratios(rounds: Rounds, name: str, other: str) -> dict[str, float | None]:
    def ratio(runs: dict[str, Run], key: str) -> float | None:
        own, others = runs[name].measures[key], runs[other].measures[key]
        return own / others if own is not None and others else None

    return {key: _median(lambda runs: ratio(runs, key), rounds) for key in MEASURES}  # noqa: B023


def _median(
    value: Callable[[dict[str, Run]], float | None], rounds: Sequence[dict[str, Run]]
) -> float | None:
    found = [number for runs in rounds if (number := value(runs)) is not None]
    return statistics.median(found) if found else None


def _cell(value: float | None, unit: float, digits: int = 2) -> str:
    return "" if value is None else f"{value * unit:.{digits}f}"


if __name__ == "__main__":
    main()
