"""The loop of a run, with workers that answer at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError, TooManyFailures
from pipeline.files.storage import Storage
from pipeline.input.shards import ShardPlan, list_shards, plan_shard
from pipeline.job.actors.pool import Done, Event
from pipeline.job.assignment import Assignment
from pipeline.job.run import JUDGED_ROWS, Run, Screen
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import count
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.in_process import InProcess


class Instant(InProcess):
    """A worker that commits what it gets at once, and an assembly; rows from `fails_from` on fail."""

    def __init__(self, manifest: Manifest, fails_from: int) -> None:
        super().__init__(manifest)
        self.fails_from = fails_from
        self.ready = {"worker": "machine"}
        self.answers = Answers("m", manifest.fingerprint.digest, pa.schema([]))
        self.events_: list[Event] = []

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        (chunk,) = assignment.chunks
        records = [self.record(number) for number in range(chunk.start, chunk.stop)]
        table = self.answers.table(records, pa.table({}))
        tally = count(table, chunk.shard)
        self.manifest.commit_chunk(chunk, table, tally)
        self.events_.append(Done(worker, assignment, tally))

    def record(self, number: int) -> dict[str, object]:
        if number >= self.fails_from:
            return self.answers.error(f"row-{number}", RowError("model_not_found", "which?"), 1)
        row = Row(f"row-{number}", parse_request("/v1/completions", {"prompt": "why?"}))
        return self.answers.completion(row, [Generation("so", (1,), "stop", 2, 0)], 1)

    def events(self, timeout: float) -> Iterator[Event]:
        while self.events_:
            yield self.events_.pop()


class Silent:
    rows_per_second = 0.0

    def say(self, message: str) -> None: ...
    def show(self, run: Run, pulse: Pulse, workers: int) -> None: ...


def finish(
    folder: Path, rows: int, fails_from: int, screen: Screen | None = None, **retry: float
) -> Manifest:
    names = [f"row-{number}" for number in range(rows)]
    (folder / "in").mkdir()
    pq.write_table(pa.table({"custom_id": names, "prompt": names}), folder / "in/s.parquet")
    plan = plan_shard(list_shards(str(folder / "in"))[0])
    paths = {"input": {"path": str(folder / "in")}, "output": {"path": str(folder / "out")}}
    job = JobConfig.model_validate({"model": {"path": "m"}, "retry": retry, **paths})
    manifest = Manifest(
        Storage.at(job.output.path), Fingerprint.of(job, "0" * 64, [plan]), {"input": job.input.path}
    )
    manifest.begin()
    run = Run(job.retry, [plan], manifest)
    run.take_stock()
    farm = Instant(manifest, fails_from)
    run.work(farm, farm, screen or Silent())
    manifest.finish([plan])
    return manifest


def test_a_job_in_which_nearly_all_rows_fail_stops_early_with_the_commonest_error(tmp_path: Path) -> None:
    with pytest.raises(TooManyFailures, match=r"most with model_not_found: .*which.*'row-.*' in s.parquet"):
        finish(tmp_path, 10 * JUDGED_ROWS, fails_from=20)
    files = (path for path in (tmp_path / "out").rglob("*.parquet") if path.is_file())
    committed = [pq.ParquetFile(path).metadata.num_rows for path in files]
    assert JUDGED_ROWS <= sum(committed) < 2 * JUDGED_ROWS


@pytest.mark.parametrize(
    ("rows", "fails_from", "most"),
    [(JUDGED_ROWS - 1, 0, 0.95), (3 * JUDGED_ROWS, JUDGED_ROWS, 0.95), (2 * JUDGED_ROWS, 0, 1)],
    ids=["too few to judge", "a third is sound", "the user wants it so"],
)
def test_other_jobs_with_failures_end_whole(tmp_path: Path, rows: int, fails_from: int, most: float) -> None:
    manifest = finish(tmp_path, rows, fails_from, max_failures=most)
    report = verify(manifest.output.url, deep=True)
    assert report.problems == []
    assert (report.totals.rows, report.totals.failed) == (rows, rows - fails_from)


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_a_job_whose_first_rows_all_fail_says_why_with_an_example_long_before_it_is_given_up(
    tmp_path: Path,
) -> None:
    """nightherd's issue 12: rows failed, and only their number was said."""
    told = Told()
    finish(tmp_path, JUDGED_ROWS - 1, fails_from=0, screen=told)
    first = [line.strip() for line in told.lines[:3]]
    assert first[0].startswith("all ") and first[0].endswith("rows so far failed:")
    assert first[1].startswith("model_not_found: ")
    assert re.fullmatch(r"256 x which\? \(for example 'row-\d+' in s.parquet\)", first[2])
    # At the first chunk, and not at every chunk again.
    assert len([line for line in told.lines if "so far failed" in line]) <= 3


def test_a_few_failures_are_told_as_what_they_are(tmp_path: Path) -> None:
    told = Told()
    manifest = finish(tmp_path, 300, fails_from=299, screen=told)
    assert re.fullmatch(r"1 of \d+ rows so far failed:", told.lines[0])
    footer = manifest.footer("responses/s.parquet")
    assert footer.tally.errors.codes == (("model_not_found", 1),)
    assert footer.tally.errors.reasons[0].custom_id == "row-299"
