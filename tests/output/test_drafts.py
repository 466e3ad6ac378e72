"""A job that is stopped keeps the rows that were answered, also those of chunks under way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError, WorkerError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.job.actors.pool import Done
from pipeline.job.assignment import Assignment
from pipeline.job.backlog import left_of
from pipeline.job.open_commits import OpenCommits
from pipeline.job.run import Run
from pipeline.job.worker import Identity, Worker
from pipeline.output.drafts import Drafts
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.tally import Tally
from tests.given_job import FINE, Job
from tests.in_process import InProcess
from tests.job.test_run import Silent

ANSWERS = Answers("m", "0", pa.schema([]))


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """Answers rows in an order of its own, some of them, then saves a draft and dies."""

    kind = "generate"

    def __init__(self, order: Sequence[int] = (), busy: Sequence[int] = ()) -> None:
        """order: places of the rows that are answered before it dies; () for one that lives. busy: those of
        them that failed for now."""
        self.order, self.busy = order, busy
        self.asked: Counter[str] = Counter()
        self.told: dict[int, dict[str, Any]] = {}
        self.worker: Worker | None = None

    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        self.asked.update(row.custom_id for row in rows)
        if not self.order:
            return [self.answer(row) for row in rows]
        self.told = {place: self.answer(rows[place], place in self.busy) for place in self.order}
        assert self.worker
        self.worker.save()
        raise Killed

    def answer(self, row: Row, busy: bool = False) -> dict[str, Any]:
        if busy:
            return ANSWERS.error(row.custom_id, RowError("server_error", "not now"), 1)
        if row.custom_id.endswith("3"):
            return ANSWERS.error(row.custom_id, RowError("invalid_request", "never"), 1)
        return ANSWERS.completion(row, [Generation("well", (1, 2), "stop", 5, 1)], 1)

    def answered(self, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
        return self.told

    def pulse(self) -> Pulse:
        return Pulse()

    def close(self) -> None: ...


class Farm(InProcess):
    """One worker in this process, and the assembly."""

    def __init__(self, job: JobConfig, manifest: Manifest, responder: Mortal) -> None:
        super().__init__(manifest)
        self.ready = {"worker": "machine"}
        self.worker = responder.worker = Worker(job, Identity("m", "0"), manifest, responder)
        self.events_: list[Done] = []

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        tally = sum((self.worker.process(plans[c.shard], c) for c in assignment.chunks), Tally())
        self.events_.append(Done(worker, assignment, tally))

    def events(self, timeout: float) -> list[Done]:
        events, self.events_ = self.events_, []
        return events


class Stage:
    def __init__(self, folder: Path, rows: int) -> None:
        names = [f"r{number}" for number in range(rows)]
        pq.write_table(pa.table({"custom_id": names, "prompt": names}), folder / "s.parquet")
        paths = {"input": {"path": str(folder / "s.parquet")}, "output": {"path": str(folder / "out")}}
        self.job = JobConfig.model_validate({"model": {"path": "m"}, **paths})
        self.plan = plan_shard(list_shards(self.job.input.path)[0])

    def manifest(self) -> Manifest:
        prints = Fingerprint.of(self.job, "0" * 64, [self.plan])
        return Manifest(Storage.at(self.job.output.path), prints, {"input": self.job.input.path})

    def run(self, responder: Mortal, first_rows: int = 256) -> Run:
        manifest = self.manifest()
        manifest.begin()
        run = Run(self.job.retry, [self.plan], manifest)
        run.take_stock()
        farm = Farm(self.job, manifest, responder)
        run.work(farm, farm, Silent(), first_rows)
        manifest.finish([self.plan])
        return run


@given(
    st.permutations(range(59)).flatmap(lambda order: st.integers(1, 58).map(lambda n: order[:n])), st.data()
)
@settings(max_examples=15)
def test_no_answered_row_is_answered_again(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], data: st.DataObject
) -> None:
    """nightherd's issue 12: 23 of 59 rows were lost as they were one chunk."""
    stage = Stage(tmp_path_factory.mktemp("job"), 59)
    busy = data.draw(st.sets(st.sampled_from(order), max_size=3))
    with pytest.raises(Killed):
        stage.run(Mortal(order, tuple(busy)))
    healthy = Mortal()
    run = stage.run(healthy)
    # What failed for now is no answer yet.
    kept = {f"r{place}" for place in order} - {f"r{place}" for place in busy}
    assert healthy.asked == Counter({f"r{n}" for n in range(59)} - kept)
    assert (run.before.rows, run.done.rows) == (len(kept), 59)
    report = verify(stage.job.output.path, deep=True)
    assert report.problems == [] and report.totals.rows == 59
    errors = dict(report.totals.errors.codes)
    assert errors == {"invalid_request": 6}  # r3, r13 ... r53


def test_a_worker_that_dies_while_the_job_goes_on_loses_nothing_that_it_saved(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 40)
    manifest = stage.manifest()
    manifest.begin()
    run = Run(stage.job.retry, [stage.plan], manifest)
    run.take_stock()
    (chunk,) = [Chunk("s.parquet", 0, 40)]
    mortal = Mortal([5, 6, 7, 20])
    with pytest.raises(Killed):
        Farm(stage.job, manifest, mortal).worker.process(stage.plan, chunk)
    found = run._committed([chunk])
    assert sorted(found) == [Chunk("s.parquet", 5, 8), Chunk("s.parquet", 20, 21)]
    assert {chunk: tally.rows for chunk, tally in found.items()} == {chunk: chunk.rows for chunk in found}
    assert manifest.output.list(manifest.draft_name(chunk)) == {}


@given(st.sets(st.tuples(st.integers(0, 30), st.integers(1, 5))), st.integers(0, 20), st.integers(0, 30))
def test_what_is_left_and_what_is_done_are_the_whole(
    pairs: set[tuple[int, int]], start: int, rows: int
) -> None:
    chunk, done, border = Chunk("s", start, start + rows), [], start
    for first, length in sorted(pairs):
        if first >= border and first + length <= chunk.stop:
            done.append(Chunk("s", first, first + length))
            border = first + length
    left = list(left_of(chunk, [*done, Chunk("other", start, start + 1)]))
    numbers = sorted(n for part in [*done, *left] for n in range(part.start, part.stop))
    assert numbers == list(range(chunk.start, chunk.stop))
    assert all(part.within(chunk) for part in left)


def test_a_chunk_that_ends_well_leaves_no_draft(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 9)
    manifest = stage.manifest()
    manifest.begin()

    class Saving(Mortal):
        def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
            self.told = {2: self.answer(rows[2])}
            assert self.worker
            self.worker.save()
            drafts.extend(name for name in manifest.output.list() if name.endswith(".draft"))
            return [self.answer(row) for row in rows]

    drafts: list[str] = []
    worker = Farm(stage.job, manifest, Saving()).worker
    worker.process(stage.plan, Chunk("s.parquet", 0, 5))
    assert drafts == [manifest.draft_name(Chunk("s.parquet", 0, 5))]
    assert [name for name in manifest.output.list() if name.endswith(".draft")] == []
    worker.save()
    assert [name for name in manifest.output.list() if name.endswith(".draft")] == []


def test_a_worker_that_has_ended_commits_nothing_and_keeps_what_it_has(tmp_path: Path) -> None:
    """A run counts its rows when its workers have ended: what came later would be missing in its totals."""
    stage = Stage(tmp_path, 9)
    manifest = stage.manifest()
    manifest.begin()
    chunk = Chunk("s.parquet", 0, 5)
    ended: list[int] = []

    class Ending(Mortal):
        def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
            self.told = {2: self.answer(rows[2])}
            assert self.worker
            self.worker.end()
            ended.append(len(rows))
            return [self.answer(row) for row in rows]

    with pytest.raises(WorkerError, match="the run has ended"):
        Farm(stage.job, manifest, Ending()).worker.process(stage.plan, chunk)
    assert ended == [5]
    assert manifest.finished_chunks("s.parquet") == {}
    Drafts(manifest).commit_all("s.parquet")
    assert list(manifest.finished_chunks("s.parquet")) == [Chunk("s.parquet", 2, 3)]


def test_the_end_waits_for_commits_under_way() -> None:
    commits, order = OpenCommits(), list[str]()
    with commits.one():
        ending = threading.Thread(target=lambda: (commits.close(), order.append("closed")))
        ending.start()
        ending.join(0.05)
        order.append("committed")
    ending.join()
    assert order == ["committed", "closed"]
    with pytest.raises(WorkerError, match="the run has ended"), commits.one():
        pass


def test_drafts_of_others_and_broken_ones_hold_nothing() -> None:
    job = Job({"a.parquet": [FINE] * 9})
    chunk, table = Chunk("a.parquet", 2, 6), job.table(Chunk("a.parquet", 3, 5))
    drafts = Drafts(job.manifest)
    stranger = Job({"a.parquet": [FINE] * 8}, url=f"{job.url}-other")
    Drafts(stranger.manifest).keep(chunk, [3, 4], table)
    foreign = stranger.manifest.output.read_bytes(stranger.manifest.draft_name(chunk))
    for data in (foreign, b"", b"PAR1 no Parquet PAR1"):
        job.manifest.output.replace(job.manifest.draft_name(chunk), data)
        drafts.commit_all("a.parquet")
        assert job.manifest.finished_chunks("a.parquet") == {}
    drafts.keep(chunk, [3, 4], table)
    drafts.commit_all("a.parquet")
    assert list(job.manifest.finished_chunks("a.parquet")) == [Chunk("a.parquet", 3, 5)]


def test_drafts_are_no_answers_for_anybody_else() -> None:
    job = Job({"a.parquet": [FINE] * 9, "b.parquet": [FINE]})
    chunk = Chunk("a.parquet", 0, 9)
    Drafts(job.manifest).keep(chunk, [3, 4], job.table(Chunk("a.parquet", 3, 5)))
    assert job.manifest.finished_chunks("a.parquet") == {}
    # An output whose record was lost is still this job's.
    job.manifest.output.remove("_work/job.json")
    assert job.manifest.begin() is False
    job.commit()
    job.manifest.finish([*job.plans.values()])
    Drafts(job.manifest).keep(chunk, [3, 4], job.table(Chunk("a.parquet", 3, 5)))
    assert not [name for name in job.manifest.output.list() if name.startswith("_work")]


def test_saving_from_many_threads_does_no_harm(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 30)
    manifest = stage.manifest()
    manifest.begin()

    class Busy(Mortal):
        def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
            assert self.worker
            threads = [threading.Thread(target=self.worker.save) for _ in range(4)]
            for place, row in enumerate(rows):
                self.told = self.told | {place: self.answer(row)}
                if place % 8 == 0:
                    threads[place // 8].start()
            for thread in threads:
                thread.join()
            return [self.answer(row) for row in rows]

    Farm(stage.job, manifest, Busy()).worker.process(stage.plan, Chunk("s.parquet", 0, 30))
    manifest.finish([stage.plan])
    assert verify(stage.job.output.path, deep=True).problems == []
