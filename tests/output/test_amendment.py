"""A retry renews the rows that failed, in place, and no other; it can be stopped and go on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.answer.answer import Embedded, Usage
from pipeline.answer.answer_columns import response_schema
from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import OutputError, RowError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.output.amendment import Amendment
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import Footer, count
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request

REQUEST = parse_request("/v1/completions", {"prompt": "why?"})
FAILED = RowError("server_error", "try again")


class Job:
    """A finished job of one shard; the rows of `bad` failed."""

    def __init__(self, folder: Path, rows: int, bad: Iterable[int]) -> None:
        (folder / "in").mkdir(parents=True)
        names = [f"row-{number}" for number in range(rows)]
        pq.write_table(pa.table({"custom_id": names, "prompt": names}), folder / "in/s.parquet")
        self.plan: ShardPlan = plan_shard(list_shards(str(folder / "in"))[0])
        paths = {"input": {"path": str(folder / "in")}, "output": {"path": str(folder / "out")}}
        config = JobConfig.model_validate({"model": {"path": "m"}, **paths})
        prints = Fingerprint.of(config, "ab" * 32, [self.plan])
        self.manifest = Manifest(Storage.at(config.output.path), prints, {"input": config.input.path})
        self.answers = Answers("m", prints.digest, pa.schema([]))
        self.out = folder / "out"
        self.manifest.begin()
        table = self.table(range(rows), set(bad), "first")
        self.manifest.commit_whole(self.plan, table, count(table))
        self.manifest.finish([self.plan])

    def table(self, numbers: Iterable[int], bad: set[int], text: str) -> pa.Table:
        return self.answers.table([self.record(n, n in bad, text) for n in numbers], pa.table({}))

    def record(self, number: int, fails: bool, text: str) -> dict[str, Any]:
        if fails:
            return self.answers.error(f"row-{number}", FAILED, 2)
        generation = Generation(f"{text} {number}", (1, 2), "stop", 3, 0)
        return self.answers.completion(Row(f"row-{number}", REQUEST), [generation], 1)

    def answer(self, chunk: Chunk, bad: set[int], retry: int = 1) -> None:
        table = self.table(range(chunk.start, chunk.stop), bad, "second")
        self.manifest.commit_chunk(chunk, table, count(table), retry)

    def retry(self, bad: set[int]) -> Amendment:
        amendment = Amendment(self.manifest, self.manifest.reopen())
        for chunk in amendment.failed(self.plan):
            self.answer(chunk, bad, amendment.number)
        amendment.commit(self.plan)
        self.manifest.finish([self.plan])
        return amendment

    def column(self, name: str) -> list[Any]:
        values: list[Any] = pq.read_table(self.out / "responses/s.parquet").column(name).to_pylist()
        return values


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["sound", "renewed", "failed twice"]), min_size=1, max_size=40))
def test_only_failed_rows_change_and_all_totals_agree(tmp_path_factory, fates: list[str]) -> None:
    bad = {number for number, fate in enumerate(fates) if fate != "sound"}
    worse = {number for number, fate in enumerate(fates) if fate == "failed twice"}
    job = Job(tmp_path_factory.mktemp("job"), len(fates), bad)
    job.retry(worse)
    assert verify(str(job.out), deep=True).problems == []
    texts = {"sound": "first {}", "renewed": "second {}"}
    assert job.column("text") == [
        None if fate == "failed twice" else texts[fate].format(number) for number, fate in enumerate(fates)
    ]
    assert job.column("attempts") == [{"sound": 1, "renewed": 3, "failed twice": 4}[fate] for fate in fates]


def test_a_retry_goes_on_after_each_point_at_which_it_may_have_stopped(tmp_path: Path) -> None:
    job = Job(tmp_path, 6, {1, 4})
    number = job.manifest.reopen()
    assert job.manifest.reopen() == number == 1
    job.answer(Chunk("s.parquet", 1, 2), set())
    amendment = Amendment(job.manifest, job.manifest.reopen())
    assert amendment.finished(job.plan) is None
    assert set(job.manifest.finished_chunks("s.parquet", number)) == {Chunk("s.parquet", 1, 2)}
    job.answer(Chunk("s.parquet", 4, 5), {4})
    amendment.commit(job.plan)
    assert amendment.finished(job.plan) == amendment.commit(job.plan)
    job.manifest.finish([job.plan])
    assert job.column("attempts") == [1, 3, 1, 1, 4, 1]
    assert verify(str(job.out)).problems == []
    assert job.retry(set()).number == 2
    assert job.column("attempts") == [1, 3, 1, 1, 5, 1]


def test_an_interrupted_retry_leaves_a_job_that_run_can_finish(tmp_path: Path) -> None:
    job = Job(tmp_path, 3, {1})
    job.manifest.reopen()
    assert not job.manifest.begin()
    assert set(job.manifest.finished_shards()) == {"s.parquet"}
    job.manifest.finish([job.plan])
    assert verify(str(job.out)).problems == []


def test_a_shard_is_not_renewed_while_a_failed_row_has_no_new_answer(tmp_path: Path) -> None:
    job = Job(tmp_path, 6, {1, 4})
    amendment = Amendment(job.manifest, job.manifest.reopen())
    job.answer(Chunk("s.parquet", 1, 2), set())
    with pytest.raises(OutputError, match="not every failed row has been answered again"):
        amendment.commit(job.plan)
    assert job.column("text")[1] is None


def test_a_worker_of_the_first_run_that_wakes_up_during_a_retry_changes_nothing(tmp_path: Path) -> None:
    job = Job(tmp_path, 6, {1, 4})
    amendment = Amendment(job.manifest, job.manifest.reopen())
    job.answer(Chunk("s.parquet", 0, 6), set(), retry=0)
    for chunk in amendment.failed(job.plan):
        job.answer(chunk, {4})
    amendment.commit(job.plan)
    job.manifest.finish([job.plan])
    assert job.column("text") == ["first 0", "second 1", "first 2", "first 3", None, "first 5"]
    assert verify(str(job.out)).problems == []


def test_a_driver_of_the_first_run_does_not_finish_a_job_that_is_being_retried(tmp_path: Path) -> None:
    job = Job(tmp_path, 3, {1})
    retrying = Manifest(job.manifest.output, job.manifest.fingerprint)
    retrying.reopen()
    with pytest.raises(OutputError, match="being retried"):
        job.manifest.finish([job.plan])
    assert retrying.under_way() == 1


def test_a_shard_that_two_retries_renew_at_once_is_renewed_once(tmp_path: Path) -> None:
    job = Job(tmp_path, 6, {1, 4})

    class Overtaken(Manifest):
        def chunk_footers(self, shard: str, retry: int = 0) -> list[Footer]:
            first.commit(job.plan)
            return super().chunk_footers(shard, retry)

    first = Amendment(job.manifest, job.manifest.reopen())
    late = Overtaken(job.manifest.output, job.manifest.fingerprint)
    second = Amendment(late, late.reopen())
    for chunk in first.failed(job.plan):
        job.answer(chunk, {4})
    assert second.commit(job.plan) == first.finished(job.plan)
    job.manifest.finish([job.plan])
    assert verify(str(job.out)).problems == []


def test_a_late_retry_does_not_change_a_job_that_was_finished_without_it(tmp_path: Path) -> None:
    job = Job(tmp_path, 6, {1, 4})

    class Slow(Manifest):
        def table(self, name: str) -> pa.Table:
            found = super().table(name)
            self.output.remove("_work/job.json")
            return found

    late = Slow(job.manifest.output, job.manifest.fingerprint)
    amendment = Amendment(late, late.reopen())
    for chunk in amendment.failed(job.plan):
        job.answer(chunk, set())
    with pytest.raises(OutputError, match="retry 1 is over"):
        amendment.commit(job.plan)
    assert job.column("text")[1] is None


def test_the_number_of_a_retry_is_found_in_the_responses_if_its_record_is_lost(tmp_path: Path) -> None:
    job = Job(tmp_path, 6, {1, 4})
    job.retry({4})
    (job.out / "_SUCCESS").unlink()
    assert not job.manifest.begin()
    job.manifest.finish([job.plan])
    assert job.retry(set()).number == 2
    assert job.column("attempts") == [1, 3, 1, 1, 5, 1]


def test_only_a_finished_job_is_retried(tmp_path: Path) -> None:
    job = Job(tmp_path, 2, {1})
    record = json.loads((job.out / "_SUCCESS").read_text())
    (job.out / "_SUCCESS").unlink()
    with pytest.raises(OutputError, match="nightherd run ends it"):
        job.manifest.reopen()
    assert record["retry"] == 0


def test_vectors_keep_one_length_or_become_lists_of_any(tmp_path: Path) -> None:
    job = Job(tmp_path, 2, set())
    answers = Answers("m", job.manifest.fingerprint.digest, pa.schema([]), "embed")
    asked = Row("row-0", parse_request("/v1/embeddings", {"input": "a"}))
    assert response_schema("embed", pa.schema([])) == answers.schema

    def table(*lengths: int) -> pa.Table:
        import numpy as np

        rows = [
            answers.embedding(asked, Embedded(np.ones((1, length), np.float32), Usage(1)), 1)
            if length
            else answers.error("row-0", FAILED, 1)
            for length in lengths
        ]
        return answers.table(rows, pa.table({}))

    for first, second, expected in [
        ((2, 0), (2,), pa.list_(pa.float32(), 2)),
        ((0, 0), (2, 2), pa.list_(pa.float32(), 2)),
        ((2, 0), (3,), pa.list_(pa.float32())),
    ]:
        folder = tmp_path / f"{first}{second}"
        prints = job.manifest.fingerprint
        manifest = Manifest(Storage.at(str(folder)), prints)
        manifest.begin()
        manifest.commit_whole(job.plan, table(*first), count(table(*first)))
        manifest.finish([job.plan])
        amendment = Amendment(manifest, manifest.reopen())
        (chunk,) = amendment.failed(job.plan)
        manifest.commit_chunk(chunk, table(*second), count(table(*second)), amendment.number)
        amendment.commit(job.plan)
        written = pq.read_table(folder / "responses/s.parquet").column("embedding")
        assert written.type == expected
        assert written.null_count == 0
