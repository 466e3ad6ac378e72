"""A scheduler submits a job again until it is done, goes on the next evening, and gives up where it must."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from night import Night, Unfinished, WrongJob, is_done, submit, submit_until_done

NIGHT = Path(__file__).parents[2] / "jobs/night.py"


class Ends:
    """A job whose runs end with these exit statuses; a 0 that is `done` writes _SUCCESS."""

    def __init__(self, output: Path, *statuses: int, done: bool = True) -> None:
        self._output, self._statuses, self._done = output, iter(statuses), done
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(list(command))
        status = next(self._statuses)
        if status == 0 and self._done:
            self._output.mkdir(exist_ok=True)
            (self._output / "_SUCCESS").write_text("{}")
        return status


def run_to_end(job: Ends, output: Path, tries: int = 5) -> tuple[Night, list[float]]:
    waited: list[float] = []
    return submit_until_done(["run"], str(output), tries, 60.0, job, waited.append), waited


def test_the_same_command_is_submitted_until_the_job_is_done(tmp_path: Path) -> None:
    job = Ends(tmp_path / "out", 1, -9, 1, 0)
    assert run_to_end(job, tmp_path / "out") == (Night.DONE, [60.0] * 3)
    assert job.commands == [["run"]] * 4


def test_a_limit_of_the_night_is_no_failure_and_not_done(tmp_path: Path) -> None:
    job = Ends(tmp_path / "out", 1, 0, done=False)
    assert run_to_end(job, tmp_path / "out") == (Night.LIMIT, [60.0])
    assert not is_done(str(tmp_path / "out"))
    assert submit(["run"], str(tmp_path / "out"), Ends(tmp_path / "out", 0)) is Night.DONE


def test_a_wrong_job_is_not_submitted_again(tmp_path: Path) -> None:
    job = Ends(tmp_path / "out", 1, 2, 0)
    with pytest.raises(WrongJob, match="exit status 2"):
        run_to_end(job, tmp_path / "out")
    assert len(job.commands) == 2


def test_it_is_given_up_after_the_last_try(tmp_path: Path) -> None:
    job = Ends(tmp_path / "out", 1, 1, 1, 0)
    with pytest.raises(Unfinished):
        run_to_end(job, tmp_path / "out", tries=3)
    assert len(job.commands) == 3


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("open(path, 'w')", 0, "every row has its answer"),
        ("pass", 75, "the next evening goes on"),
        ("raise SystemExit(1)", 1, "submit the same command again"),
        ("raise SystemExit(2)", 2, "is wrong"),
        ("import os; os.kill(os.getpid(), 9)", 1, "exit status -9"),
    ],
)
def test_the_script_ends_as_it_says(tmp_path: Path, script: str, status: int, said: str) -> None:
    job = [sys.executable, "-c", f"path = {str(tmp_path / '_SUCCESS')!r}; {script}"]
    options = ["--output", str(tmp_path), "--tries", "2", "--pause", "0", "--"]
    ended = subprocess.run([sys.executable, NIGHT, *options, *job], capture_output=True, text=True)
    assert ended.returncode == status and said in ended.stdout + ended.stderr


@pytest.fixture
def into(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[object, Ends, Path], None]]:
    """Gives a scheduler's module another command and output."""

    def set_up(module: object, job: Ends, output: Path) -> None:
        monkeypatch.setattr(module, "submit", lambda *_: submit(["run"], str(output), job))

    yield set_up


def test_dagsters_asset_is_there_when_the_job_is_done(
    tmp_path: Path, into: Callable[[object, Ends, Path], None]
) -> None:
    dagster = pytest.importorskip("dagster")
    import dagster_job

    assert dagster_job.defs.get_job_def("evening")
    for number, (statuses, done, made) in enumerate([([0], True, 1), ([0], False, 0), ([2], True, None)]):
        output = tmp_path / str(number)
        into(dagster_job, Ends(output, *statuses, done=done), output)
        result = dagster.materialize([dagster_job.answers], raise_on_error=False)
        assert result.success == (made is not None)
        assert len(result.asset_materializations_for_node("answers")) == (made or 0)


def test_airflows_dag_loads_and_tells_the_ends_apart(
    tmp_path: Path, into: Callable[[object, Ends, Path], None]
) -> None:
    pytest.importorskip("airflow")
    import airflow_dag

    dag = airflow_dag.nightherd_job()
    assert dag.task_ids == ["answer_rows", "answers"]
    rows, answers = (dag.get_task(name).python_callable for name in dag.task_ids)
    for number, (status, done, expected) in enumerate([(0, True, True), (0, False, False)]):
        output = tmp_path / str(number)
        into(airflow_dag, Ends(output, status, done=done), output)
        assert rows() is expected
    with pytest.raises(airflow_dag.AirflowSkipException):
        answers(False)
    into(airflow_dag, Ends(tmp_path, 2), tmp_path)
    with pytest.raises(airflow_dag.AirflowFailException):
        rows()
    into(airflow_dag, Ends(tmp_path, 1), tmp_path)
    with pytest.raises(Unfinished):
        rows()
    assert answers(True) == f"{airflow_dag.OUTPUT}/responses"
