"""Jobs on a real Ray cluster, with workers that answer by arithmetic and die on demand."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import ConfigError, ModelError, OutputError, StorageError, WorkersExhausted
from pipeline.failures import Failures, Reason
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, plan_shard
from pipeline.job.actors.cluster import Slot
from pipeline.job.actors.interrupts import Interrupted
from pipeline.job.actors.metrics import Metric, Recorder
from pipeline.job.driver import retry_job, run_job, try_job
from pipeline.job.planner import plan_job
from pipeline.job.worker import Identity, Worker
from pipeline.model.models import LocalModel
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.records import recorded_job
from pipeline.output.verify import verify
from pipeline.plan import planned
from pipeline.plan.checked import Checked
from pipeline.plan.estimate import Estimate
from pipeline.plan.held import held_at
from pipeline.plan.kept_plans import keep_plans
from pipeline.plan.opened import opened
from pipeline.plan.try_out import TryOut
from pipeline.pulse import Pulse
from pipeline.report.status import status
from pipeline.report.summary import Ended, Summary
from pipeline.request.rows import Row

MODEL = LocalModel(Path("fake.gguf"), "0" * 64, 1)


class Echo:
    """A responder that answers a prompt with itself in capitals.

    "KILL" ends its process; "KILL ONCE <path>" and "KILL UNLESS <path>" do so while that path is absent,
    the former makes it; "FULL <path>" finds the disk full while that path is absent; "STOP <process>"
    sends SIGTERM there, and waits."""

    kind = "generate"

    def __init__(self, answers: Answers) -> None:
        self.answers, self.rows = answers, 0

    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        self.rows += len(rows)
        return [self.answer(row, attempts) for row in rows]

    def answer(self, row: Row, attempts: int) -> dict[str, Any]:
        text: str = row.request.prompt  # type: ignore[union-attr, assignment]
        obey(text)
        return self.answers.completion(row, [Generation(text.upper(), (1, 2), "stop", 3, 1)], attempts)

    def pulse(self) -> Pulse:
        return Pulse(rows=self.rows)

    def close(self) -> None: ...


def obey(prompt: str) -> None:
    order, _, path = prompt.rpartition(" ")
    if prompt == "KILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "KILL ONCE" and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "KILL UNLESS" and not Path(path).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if order == "FULL" and not Path(path).exists():
        raise StorageError("no space left")
    if order == "STOP":
        os.kill(int(path), signal.SIGTERM)
        time.sleep(30)


@dataclass
class Echoes:
    job: JobConfig
    fingerprint: Fingerprint

    def __call__(self, slot: Slot) -> Worker:
        identity = Identity("fake", self.fingerprint.digest)
        answers = Answers("fake", self.fingerprint.digest, pa.schema([]))
        manifest = Manifest(Storage.at(self.job.output.path), self.fingerprint)
        return Worker(self.job, identity, manifest, Echo(answers))  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


class Case:
    """One job's folders."""

    def __init__(self, folder: Path) -> None:
        self.input, self.output = folder / "in", folder / "out"

    def shard(self, name: str, prompts: list[str]) -> None:
        table = pa.table({"custom_id": [f"{name}-{i}" for i in range(len(prompts))], "prompt": prompts})
        path = self.input / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.cast(pa.schema([("custom_id", pa.string()), ("prompt", pa.string())])), path)

    def job(self, **settings: Any) -> JobConfig:
        paths = {"input": {"path": str(self.input)}, "output": {"path": str(self.output)}}
        return JobConfig.model_validate({"model": {"path": "fake.gguf"}, **paths, **settings})

    def run(self, workers: Any = Echoes, **settings: Any) -> Summary:
        return run_job(self.job(**settings), workers, MODEL)

    def retry(self) -> Summary:
        return retry_job(recorded_job(Storage.at(str(self.output))), Echoes, MODEL)

    def answers(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.output / f"responses/{name}.parquet").to_pylist()
        return rows


@pytest.fixture
def case(tmp_path) -> Case:
    return Case(tmp_path)


def test_a_job_of_many_shards_ends_whole(case):
    shards = {"large": 700, "a/small": 3, "b/empty": 0, **{f"tiny{i}": 1 for i in range(20)}}
    for name, rows in shards.items():
        case.shard(name, [f"row {i}" for i in range(rows)])
    summary = case.run(cluster={"actors": 2})
    assert verify(str(case.output), deep=True).problems == []
    assert (summary.totals.rows, summary.shards) == (723, 23)
    assert [row["text"] for row in case.answers("large")] == [f"ROW {i}" for i in range(700)]
    assert not (case.output / "_work").exists()
    assert case.run(cluster={"actors": 2}).rows == 0


def test_large_json_lines_are_scanned_by_tasks_and_not_again_by_a_resume(case, monkeypatch):
    lines = [json.dumps({"custom_id": f"r{n}", "prompt": f"Ä {n}"}) for n in range(1000)]
    case.input.mkdir()
    (case.input / "x.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(planned, "SCANNED_HERE", 0)
    with opened(case.job(), MODEL) as work:
        (plan,) = work.plans
        keep_plans(work.manifest.output, work.plans)
    assert plan == plan_shard(plan.shard)
    monkeypatch.setattr(planned, "scan_cuts", None)
    summary = case.run()
    assert (summary.totals.rows, summary.totals.failed) == (1000, 0)
    assert not list(case.output.glob("_work/*"))


def test_what_a_run_has_done_is_in_its_metrics(case, monkeypatch):
    seen: dict[tuple[str, ...], float] = {}

    def count(recorder: Recorder, metric: Metric, total: float, **labels: str) -> None:
        seen[metric.name, *labels.values()] = total

    monkeypatch.setattr(Recorder, "count", count)
    case.shard("s", ["first", "KILL", "last"])
    case.run(cluster={"actors": 1}, retry={"max_attempts": 2})
    assert seen["nightherd_rows_succeeded",] == 2
    assert seen["nightherd_rows_failed", "worker_crashed"] == 1
    assert seen["nightherd_worker_deaths", "rows"] >= 2
    assert seen["nightherd_row_retries",] >= 1


def test_no_row_is_lost_or_blamed_when_an_actor_is_killed(case, tmp_path):
    prompts = [f"row {i}" for i in range(299)]
    case.shard("s", [*prompts, f"KILL ONCE {tmp_path / 'killed'}"])
    summary = case.run(cluster={"actors": 1})
    assert verify(str(case.output)).problems == []
    assert (summary.totals.rows, summary.totals.failed) == (300, 0)
    assert (tmp_path / "killed").exists()


def test_only_a_row_that_kills_its_workers_is_set_aside(case):
    case.shard("s", ["first", "KILL", "last"])
    summary = case.run(cluster={"actors": 1})
    assert [row["status_code"] for row in case.answers("s")] == [200, 500, 200]
    assert case.answers("s")[1]["error"]["code"] == "worker_crashed"
    assert dict(summary.totals.errors.codes) == {"worker_crashed": 1}


@pytest.mark.slow
def test_bad_rows_side_by_side_are_all_set_aside(case, monkeypatch):
    monkeypatch.setattr("pipeline.job.actors.ray_pool.BARREN_DEATHS", 6)
    case.shard("s", [*"abc", *["KILL"] * 3])
    case.run(cluster={"actors": 1}, retry={"max_attempts": 2})
    assert [row["error"] and row["error"]["code"] for row in case.answers("s")] == [
        *[None] * 3,
        *["worker_crashed"] * 3,
    ]


@pytest.mark.slow
def test_a_job_in_which_every_row_kills_is_given_up(case, monkeypatch):
    monkeypatch.setattr("pipeline.job.actors.ray_pool.BARREN_DEATHS", 4)
    case.shard("s", ["KILL"] * 4)
    with pytest.raises(WorkersExhausted, match="4 workers in a row died without finishing any rows"):
        case.run(cluster={"actors": 1}, retry={"max_attempts": 2})


@pytest.mark.slow
def test_failed_rows_are_answered_again_in_place(case, tmp_path):
    case.shard("s", [*(f"row {i}" for i in range(98)), f"KILL UNLESS {tmp_path / 'calm'}", "KILL"])
    case.shard("sound", ["row"])
    assert case.run(cluster={"actors": 1}).totals.failed == 2
    sound = (case.output / "responses/sound.parquet").stat().st_mtime_ns
    (tmp_path / "calm").touch()
    summary = case.retry()
    assert (summary.rows, summary.totals.rows, summary.totals.failed) == (2, 101, 1)
    assert [row["status_code"] for row in case.answers("s")] == [200] * 99 + [500]
    assert verify(str(case.output), deep=True).problems == []
    assert (case.output / "responses/sound.parquet").stat().st_mtime_ns == sound


@pytest.mark.slow
def test_a_retry_that_stopped_goes_on_with_the_same_command_as_the_job(case, tmp_path):
    case.shard("s", ["row", f"KILL UNLESS {tmp_path / 'calm'}"])
    job = case.job(cluster={"actors": 1}, retry={"max_attempts": 1})
    assert run_job(job, Echoes, MODEL).totals.failed == 1
    (tmp_path / "calm").touch()
    with opened(job, MODEL, retries=True) as work:
        work.manifest.reopen()
    assert run_job(job, Echoes, MODEL).totals.failed == 0
    assert verify(str(case.output), deep=True).problems == []


def test_a_job_that_stopped_goes_on_with_what_is_left(case, tmp_path):
    case.shard("s", [*(f"row {i}" for i in range(512)), f"FULL {tmp_path / 'space'}"])
    with pytest.raises(StorageError, match="no space left"):
        case.run(cluster={"actors": 1})
    (tmp_path / "space").touch()
    summary = case.run(cluster={"actors": 1})
    assert summary.rows < summary.totals.rows == 513
    assert verify(str(case.output)).problems == []


def test_a_try_out_is_kept_by_the_job_and_refused_when_that_is_finished(case):
    case.shard("a", [f"row {n}" for n in range(40)])
    tried = try_job(case.job(), TryOut(10), Echoes, MODEL)
    assert (tried.totals.succeeded, tried.of) == (10, 40)
    assert "tryout.parquet" in str(tried)
    state = status(str(case.output))
    assert (state.state, state.rows_done, state.rows_total) == ("stopped", 10, 40)
    assert case.run().rows == 30
    with pytest.raises(OutputError, match="the job is finished, and each row that it had is answered"):
        try_job(case.job(), TryOut(10), Echoes, MODEL)
    assert verify(str(case.output), deep=True).problems == []


def test_a_limit_ends_a_job_with_what_it_has_and_the_next_evening_does_the_rest(case):
    for name in ("a", "b", "c"):
        case.shard(name, [f"{name} {n}" for n in range(300)])
    ended = case.run(limits={"tokens": 600})
    assert isinstance(ended, Ended)
    assert 100 <= ended.totals.rows < ended.of == 900
    shown = str(ended)
    assert "limits.tokens ends the run" in shown and f"{900 - ended.totals.rows} are missing" in shown
    assert status(str(case.output)).state == "stopped"
    assert status(str(case.output)).rows_done == ended.totals.rows
    assert not (case.output / "_SUCCESS").exists()
    assert case.run().rows == 900 - ended.totals.rows
    assert verify(str(case.output), deep=True).problems == []


def test_a_forecast_is_kept_with_its_sample_and_held_against_what_came(case):
    case.shard("a", [f"row {n}" for n in range(300)])
    case.shard("b", [f"row {n}" for n in range(100)])
    job = case.job(cluster={"price_per_hour": 2.0})
    forecast = plan_job(job, 40, Echoes, MODEL, check=Bounded(90))
    assert forecast.numbers["rows"] == Estimate.known(400)
    assert forecast.numbers["completion_tokens"] == Estimate.known(800)
    assert (forecast.checked.rows, forecast.checked.refused_rows) == (400, 10)
    assert forecast.rows_left == 400 - forecast.sampled < 400
    assert {"cost", "seconds", "cpu_hours", "output_bytes"} <= forecast.numbers.keys()
    assert pq.read_table(case.output / "tryout.parquet").num_rows == forecast.sampled
    assert not (case.output / "_SUCCESS").exists()
    summary = case.run()
    assert summary.rows == forecast.rows_left
    assert "against the forecast: " in str(summary)
    found = {number.name: number.came for number in held_at(str(case.output))}
    assert (found["rows"], found["completion_tokens"]) == (400, 800)
    assert found["seconds"] > 0
    with pytest.raises(OutputError, match="the job is finished"):
        plan_job(job, 40, Echoes, MODEL, check=Bounded(90))
    assert verify(str(case.output), deep=True).problems == []


@dataclass
class Bounded:
    """Refuses the rows of a shard from a number on, and counts three tokens for each of the others."""

    rows: int

    def __call__(self, task: tuple[ShardPlan, Chunk]) -> Checked:
        plan, chunk = task
        bad = max(0, chunk.stop - max(chunk.start, self.rows)) if plan.shard.name.startswith("b") else 0
        reasons = [Reason("invalid_request", "why?", bad, chunk.shard, "b-99")] if bad else []
        return Checked(chunk.rows, 3 * (chunk.rows - bad), Failures.of(reasons))


def test_an_output_inside_of_its_input_is_not_taken_for_input(case):
    case.output = case.input / "out"
    case.shard("s", ["row"])
    case.run(cluster={"actors": 1})
    assert case.run().rows == 0
    assert verify(str(case.output), deep=True).problems == []


def test_a_signal_stops_the_job_and_says_how_to_resume(case):
    case.shard("s", [f"STOP {os.getpid()}"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match=r"SIGTERM.*the same command resumes"):
        case.run(cluster={"actors": 1})
    assert signal.getsignal(signal.SIGTERM) == before
    assert status(str(case.output)).rows_done == 0


def test_another_job_does_not_touch_the_output(case):
    case.shard("s", ["row"])
    case.run()
    with pytest.raises(OutputError, match="max_tokens"):
        case.run(request={"defaults": {"max_tokens": 3}})


class NoModel(Echoes):
    def __call__(self, slot: Slot) -> Worker:
        raise ModelError("fake.gguf is not a GGUF file")


class DeadAtBirth(Echoes):
    def __call__(self, slot: Slot) -> Worker:
        os._exit(1)


def test_a_model_that_no_worker_can_load_stops_the_job_with_its_message(case):
    case.shard("s", ["row"])
    with pytest.raises(ModelError, match="is not a GGUF file"):
        case.run(NoModel)


def test_workers_that_die_while_starting_exhaust_the_job(case):
    case.shard("s", ["row"])
    with pytest.raises(WorkersExhausted, match="died while starting"):
        case.run(DeadAtBirth, cluster={"actors": 1})


class Remark(Echoes):
    def __call__(self, slot: Slot) -> Worker:
        worker = super().__call__(slot)
        worker.notes = ("llama.cpp runs without AMX here",)
        return worker


def test_what_is_to_be_known_of_the_machines_is_said_once(case, capsys):
    case.shard("s", ["row"] * 40)
    case.run(Remark, cluster={"actors": 2})
    assert capsys.readouterr().err.count("llama.cpp runs without AMX here") == 1


def test_a_request_field_that_does_not_exist_is_refused_before_any_work(case):
    case.shard("s", ["row"])
    with pytest.raises(ConfigError, match="max_tokenz"):
        case.run(request={"defaults": {"max_tokenz": 3}})
