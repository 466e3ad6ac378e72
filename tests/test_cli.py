"""The command line teaches, lays flags over the file, and ends with 0, 1 or 2 and one clear message."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import __version__
from pipeline.cli import app
from pipeline.config import JobConfig
from pipeline.errors import InputError
from pipeline.plan.try_out import TryOut
from pipeline.tally import Tally

THREE_FLAGS = ["--model", "m.gguf", "--input", "in", "--output", "out"]


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def jobs(monkeypatch) -> list[JobConfig]:
    """The jobs that `run` started, instead of running them."""
    started: list[JobConfig] = []
    driver = ModuleType("pipeline.job.driver")
    driver.run_job = lambda job, tell: started.append(job)  # type: ignore[attr-defined]
    driver.try_job = lambda job, asked, tell: started.append((job, asked))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.job.driver", driver)
    return started


@pytest.mark.parametrize("command", ["run", "status", "verify"])
def test_help_teaches_every_command(command):
    assert f" {command} " in call("--help").output
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_of_run_names_its_flags_and_shows_examples():
    output = call("run", "--help").output
    for word in ("--model", "--input", "--output", "--actors", "--slots", "--set", "JOB.yaml", "Examples"):
        assert word in output


def test_version():
    assert call("--version").output.strip() == f"nightherd {__version__}"


def test_help_does_not_load_ray_or_models():
    code = (
        "import sys, pipeline.cli; sys.exit(any(m in sys.modules for m in ('ray', 'pyarrow', 'llama_cpp')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_three_flags_make_a_job(jobs):
    result = call("run", *THREE_FLAGS)
    assert result.exit_code == 0
    (job,) = jobs
    assert (job.model.path, job.input.path, job.output.path) == ("m.gguf", "in", "out")


def test_limit_and_sample_ask_for_a_try_out(jobs):
    call("run", *THREE_FLAGS, "--limit", "3")
    call("run", *THREE_FLAGS, "--sample", "4")
    assert [asked for _, asked in jobs] == [TryOut(3), TryOut(4, by_chance=True)]
    both = call("run", *THREE_FLAGS, "--limit", "3", "--sample", "4")
    assert both.exit_code == 2
    assert "choose one" in both.stderr


def test_flags_override_settings_and_settings_override_the_file(jobs, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text(
        "model: {path: file.gguf}\ninput: {path: a}\noutput: {path: b}\nengine: {slots: 2, context: 64}\n"
    )
    result = call("run", str(file), "--slots", "8", "--set", "engine.slots=4", "--set", "engine.context=128")
    assert result.exit_code == 0
    (job,) = jobs
    assert (job.engine.slots, job.engine.context, job.model.path) == (8, 128, "file.gguf")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run"], "--model"),
        (["run", "--model", "m"], "--input, --output"),
        (["run", *THREE_FLAGS, "--set", "engine.slotz=3"], "engine.slotz"),
        (["run", *THREE_FLAGS, "--set", "engine.slots=many"], "engine.slots"),
        (["run", *THREE_FLAGS, "--set", "engine.slots"], "KEY=VALUE"),
        (["run", *THREE_FLAGS, "--set", "engine.slots=" + "[" * 5000], "engine.slots"),
        (["run", *THREE_FLAGS, "--actors", "0"], "cluster.actors"),
        (["run", "absent.yaml"], "absent.yaml"),
        (["run", *THREE_FLAGS, "--nonsense"], "--nonsense"),
        (["dance"], "dance"),
        (["status"], "OUT"),
    ],
)
def test_wrong_usage_ends_with_2_and_is_named(jobs, arguments, named):
    result = call(*arguments)
    assert result.exit_code == 2
    assert named in result.output
    assert "Traceback" not in result.output
    assert not jobs


def test_a_job_that_fails_ends_with_1_and_one_message(monkeypatch, jobs):
    def fail(job: JobConfig, tell: object) -> None:
        raise InputError("in: no Parquet file here")

    monkeypatch.setattr(sys.modules["pipeline.job.driver"], "run_job", fail)
    result = call("run", *THREE_FLAGS)
    assert result.exit_code == 1
    assert result.output.strip() == "nightherd: in: no Parquet file here"


@pytest.mark.parametrize(("problems", "exit_status"), [([], 0), (["a.parquet: 3 rows, not 4"], 1)])
def test_verify_prints_problems_and_ends_accordingly(monkeypatch, problems, exit_status):
    module = ModuleType("pipeline.output.verify")
    report = SimpleNamespace(problems=problems, notes=[], totals=Tally(rows=4))
    module.verify = lambda output, deep=False: report  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.output.verify", module)
    result = call("verify", "out")
    assert result.exit_code == exit_status
    assert all(problem in result.output for problem in problems)


@pytest.mark.parametrize("record", ['{"committer": "magic"}', "{}", "[]", "", "null", "[" * 9**5])
@pytest.mark.parametrize("command", ["status", "verify", "retry", "export"])
def test_a_success_file_of_another_tool_is_no_job(tmp_path, command, record):
    (tmp_path / "_SUCCESS").write_text(record)
    result = call(command, str(tmp_path), *(["-"] if command == "export" else []))
    assert result.exit_code == 1
    assert "_SUCCESS: not " in result.output
    assert isinstance(result.exception, SystemExit)
