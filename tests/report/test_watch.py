"""`nightherd status --watch` follows a job to its end, and says when nobody seems to work on it any more."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import OutputError, StorageError
from pipeline.output.records import PROGRESS, RECORD, SUCCESS
from pipeline.report import status as reading
from pipeline.report import watch as watching
from pipeline.report.status import Status, status
from pipeline.report.watch import watch
from pipeline.tally import Tally
from tests.given_job import FINE, Job


@pytest.fixture
def job() -> Job:
    """On an object store, as far as fsspec's memory file system is one."""
    return Job({"a.parquet": [FINE] * 8, "b.parquet": [("error", "invalid_request")] * 2})


def tell(job: Job, rows: int, **facts: Any) -> None:
    """What the driver writes."""
    told = {"updated": time.time(), "rows_done": rows, "tally": Tally(rows=rows).to_dict()}
    told |= {"rows_per_second": 2.0, "workers": 1}
    job.manifest.output.replace(PROGRESS, json.dumps(told | facts).encode())


def watched(job: Job, *events: Callable[[], object], terminal: bool = False) -> tuple[Status, str]:
    """What a person sees while one thing after the other happens between two looks."""
    left = list(events)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=200, highlight=False)
    found = watch(job.url, 0.1, console, sleep=lambda _: left.pop(0)())
    assert not left, "it ended too early"
    return found, shown.getvalue()


def test_each_change_is_a_line_until_the_job_is_finished(job: Job) -> None:
    tell(job, 2)
    found, shown = watched(job, lambda: tell(job, 4), lambda: tell(job, 4), job.finish)
    assert found.state == "finished"
    assert shown.splitlines()[:3] == [
        "running: 2 of 10 rows, 1 worker, 2.0 rows a second, about 4.0 s left",
        "running: 4 of 10 rows, 1 worker, 2.0 rows a second, about 3.0 s left",
        "finished: 10 of 10 rows, 2 of 2 shards",
    ]
    assert "invalid_request: 2 rows" in shown


def test_what_is_answered_but_not_committed_yet_is_no_more_to_wait_for(job: Job) -> None:
    tell(job, 2, rows_left=5)
    assert status(job.url).pace == "1 worker, 2.0 rows a second, about 2.5 s left"


def test_a_terminal_is_drawn_anew(job: Job) -> None:
    tell(job, 2)
    _, shown = watched(job, lambda: tell(job, 4), job.finish, terminal=True)
    assert all(f"{rows} of 10 rows" in shown for rows in (2, 4, 10))
    assert "\x1b[2K" in shown
    plain = Text.from_ansi(shown).plain.splitlines()
    assert "running: 4 of 10 rows, 0 of 2 shards" in [line.strip() for line in plain]


def test_a_job_that_stopped_is_watched_no_more(job: Job) -> None:
    tell(job, 2)
    found, shown = watched(job, lambda: tell(job, 3, stopped=True))
    assert (found.state, found.silent) == ("stopped", False)
    assert "stopped: 3 of 10 rows" in shown and "dead" not in shown


def test_a_silent_driver_seems_to_be_dead_and_may_be_resumed(job: Job) -> None:
    tell(job, 2)
    long_ago = time.time() - 3700
    found, shown = watched(job, lambda: tell(job, 2, updated=long_ago), lambda: tell(job, 5), job.finish)
    assert "its driver has said nothing for 1 h 01 min: it seems to be dead" in shown
    assert "running: 5 of 10 rows" in shown
    assert found.state == "finished"


def test_a_job_that_has_just_begun_is_waited_for(job: Job) -> None:
    assert status(job.url).state == "stopped"
    assert not status(job.url).over
    found, shown = watched(job, lambda: tell(job, 1), job.finish)
    assert "its driver has said nothing yet" in shown
    assert found.state == "finished"


def test_storage_that_fails_for_a_while_is_asked_again(job: Job, monkeypatch) -> None:
    tell(job, 2)
    answers = [status(job.url), StorageError("503: slow down"), status(job.finish().url)]

    def read(url: str) -> Status:
        answer = answers.pop(0)
        if isinstance(answer, StorageError):
            raise answer
        return answer

    monkeypatch.setattr(watching, "status", read)
    found, shown = watched(job, *[lambda: None] * 2)
    assert found.state == "finished"
    assert "503: slow down" in shown.splitlines()


def test_no_job_is_no_job(tmp_path) -> None:
    with pytest.raises(OutputError, match="no job has begun"):
        watch(str(tmp_path))


def test_a_job_that_is_finished_between_two_reads_is_finished(job: Job, monkeypatch) -> None:
    read = reading.read_record

    def late(output: Any, name: str) -> Any:
        if name == RECORD and not output.exists(SUCCESS):
            job.finish()
        return read(output, name)

    monkeypatch.setattr(reading, "read_record", late)
    assert status(job.url).state == "finished"


@pytest.mark.parametrize(("seconds", "waits"), [([], watching.EVERY), (["0.5"], 0.5)])
def test_ctrl_c_ends_it_well(job: Job, monkeypatch, seconds: list[str], waits: float) -> None:
    waited = []

    def interrupt(url: str, every: float) -> None:
        waited.append(every)
        raise KeyboardInterrupt

    monkeypatch.setattr(watching, "watch", interrupt)
    assert CliRunner().invoke(app, ["status", job.url, "--watch", *seconds]).exit_code == 0
    assert waited == [waits]


def test_seconds_without_watch_are_refused(job: Job) -> None:
    result = CliRunner().invoke(app, ["status", job.url, "5"])
    assert result.exit_code == 2
    assert "the seconds of --watch" in result.stderr
