"""How long planning holds up a job, and what memory it takes, by shards and rows.

    python jobs/bench_planning.py [--shards 100,1000,10000] [--rows 100000] [--lines 8] [--first-row]

Each Parquet shard is a link to one file of that many rows, with ids and short prompts; --lines: files of
JSON lines beside them, of as many rows each. Each case runs in a process of its own. --first-row: also
the seconds to the first answer of a worker with a fake model, its start and Ray's included. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from memory import MODEL, FakeWorkers

from pipeline.config import JobConfig
from pipeline.errors import JobError
from pipeline.job.driver import try_job
from pipeline.plan.opened import opened
from pipeline.plan.try_out import TryOut


def write_input(folder: Path, shards: int, rows: int, lines: int) -> None:
    folder.mkdir(parents=True)
    first = folder / "00000.parquet"
    ids = [f"row-{number:09}" for number in range(rows)]
    pq.write_table(pa.table({"custom_id": ids, "prompt": [f"Say {n}." for n in range(rows)]}), first)
    for number in range(1, shards):
        os.link(first, folder / f"{number:05}.parquet")
    for number in range(lines):
        with (folder / f"lines-{number}.jsonl").open("w") as file:
            for name in ids:
                file.write(json.dumps({"custom_id": name, "prompt": f"Say {name}."}) + "\n")


def job_on(folder: Path) -> JobConfig:
    paths = {"input": {"path": str(folder / "in")}, "output": {"path": str(folder / "out")}}
    return JobConfig.model_validate({"name": "planning", "model": {"path": "fake.gguf"}, **paths})


def measure(folder: Path) -> dict[str, Any]:
    """One case, in this process."""
    before, began = memory("VmRSS"), time.monotonic()
    with opened(job_on(folder), MODEL) as work:
        seconds = time.monotonic() - began
        return {
            "shards": len(work.plans),
            "rows": work.rows,
            "planned_seconds": round(seconds, 2),
            "peak_mib": round(memory("VmHWM")),
            "before_mib": round(before),
        }


def first_row(folder: Path) -> dict[str, Any]:
    """The seconds until the first answers are committed."""
    seen: list[float] = []
    began = time.monotonic()

    def watch() -> None:
        while not any((folder / "out").rglob("*.parquet")):
            time.sleep(0.02)
        seen.append(time.monotonic() - began)

    threading.Thread(target=watch, daemon=True).start()
    try_job(job_on(folder), TryOut(1), FakeWorkers, MODEL)
    return {"first_row_seconds": round(seen[0], 2)}


def memory(kind: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most. (What getrusage says holds for its parent, too.)"""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind)) / 1024


def case(shards: int, rows: int, lines: int, with_row: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"lines_files": lines}
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder, "in"), shards, rows, lines)
        for part in ("measure", *(["first_row"] if with_row else [])):
            command = [sys.executable, __file__, "--part", part, "--folder", folder]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if ended.returncode:
                raise JobError(f"{part} ended with {ended.returncode}")
            found |= json.loads(ended.stdout.splitlines()[-1])
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", default="100,1000,10000")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--first-row", action="store_true")
    parser.add_argument("--part", choices=["measure", "first_row"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps({"measure": measure, "first_row": first_row}[asked.part](asked.folder)))
        return
    counts = [int(count) for count in asked.shards.split(",")]
    cases = [case(count, asked.rows, asked.lines, asked.first_row) for count in counts]
    print(json.dumps({"rows_a_shard": asked.rows, "cpus": os.cpu_count(), "cases": cases}))


if __name__ == "__main__":
    main()
