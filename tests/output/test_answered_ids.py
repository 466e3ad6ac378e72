"""Rows that another output has answered are skipped by their ids, and keep their places."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import JobConfig
from pipeline.errors import ConfigError, OutputError
from pipeline.input.shards import Chunk
from pipeline.job.beginning import begin_whole, reopen
from pipeline.job.run import Run
from pipeline.output.answered_ids import AnsweredIds, _hashes
from pipeline.output.export import export
from pipeline.output.verify import Report, verify
from pipeline.report.diff import diff
from pipeline.report.page import write_report
from pipeline.report.status import status
from tests.given_job import FINE, Job
from tests.job.test_run import Silent
from tests.output.test_drafts import Killed
from tests.plan.test_corpus import Assembling, Echo, World

NAMES = st.lists(st.text(max_size=3), max_size=30)


@given(there=NAMES, asked=NAMES)
def test_ids_are_known_by_their_hashes(there: list[str], asked: list[str]) -> None:
    hashes = _hashes(there)
    ids = AnsweredIds(np.sort(hashes))
    assert ids.hashes.nbytes == 16 * len(there)
    assert ids.known(asked) == [name in there for name in asked]


def test_only_rows_with_an_answer_count_also_of_a_job_under_way() -> None:
    job = Job({"a.parquet": [FINE, ("error", "model_not_found"), FINE], "b.parquet": [FINE] * 9})
    job.commit("a.parquet").commit_chunk(Chunk("b.parquet", 2, 4))
    ids = AnsweredIds.of([job.url])
    asked = [f"a.parquet:{n}" for n in range(3)] + [f"b.parquet:{n}" for n in range(5)]
    assert ids.known(asked) == [True, False, True, False, False, True, True, False]
    assert AnsweredIds.of([]).known(asked) == [False] * 8


class Skipping(World):
    """A world whose runs skip what other outputs have."""

    skip: tuple[str, ...] = ()

    def rows(self, name: str, ids: Sequence[str | None], version: str = "v") -> None:
        prompts = [f"{version} {n} of {i}" for n, i in enumerate(ids)]
        table = pa.table({"custom_id": pa.array(ids, pa.string()), "prompt": prompts})
        pq.write_table(table, self.input / name)
        self.prompts[name] = prompts

    def go(self, echo: Echo | None = None, begin: Any = begin_whole) -> list[str]:
        """A whole run; the prompts that it had to answer."""
        echo = echo or Echo()
        with self.opened(retries=begin is reopen) as work:
            run = Run(work.config.retry, work.plans, work.manifest)
            commit = begin(work.manifest, run)
            if commit and not run.idle:
                farm = Assembling(work, echo, commit)
                farm.worker._elsewhere = AnsweredIds.of(work.config.input.skipped)
                run.work(farm, farm, Silent(), first_rows=4)
            work.manifest.finish(work.plans)
        return echo.prompts

    def job(self, changed: str = "refuse", **sections: Any) -> JobConfig:
        job = super().job(changed, **sections)
        return job.model_copy(update={"input": job.input.model_copy(update={"skip": self.skip})})

    def table(self, name: str) -> pa.Table:
        return pq.read_table(self.out / "responses" / name)

    def deep(self) -> Report:
        return verify(str(self.out), deep=True)


@pytest.fixture
def first(tmp_path: Path) -> Skipping:
    """An output with answers to the ids a, b, d; c failed."""
    world = Skipping(tmp_path / "first")
    world.rows("s.parquet", ["a", "b", "c", "d", None])
    world.go(Echo(failing=[world.prompts["s.parquet"][2]]))
    return world


@pytest.fixture
def second(tmp_path: Path, first: Skipping) -> Skipping:
    world = Skipping(tmp_path / "second")
    world.skip = (str(first.out),)
    world.rows("s.parquet", ["x", "a", "c", None, "d", "a"])
    world.rows("t.parquet", ["b"])
    return world


def test_skipped_rows_keep_their_places_and_say_that_they_are_answered_elsewhere(second: Skipping) -> None:
    asked = [second.prompts["s.parquet"][n] for n in (0, 2, 3)]
    assert second.go() == asked
    rows = second.table("s.parquet").to_pylist()
    assert [row["custom_id"] for row in rows] == ["x", "a", "c", "s.parquet:3", "d", "a"]
    assert [row["status_code"] for row in rows] == [200, 208, 200, 200, 208, 208]
    nothing = [{key for key, value in row.items() if value is not None} for row in (rows[1], rows[4])]
    assert nothing == [{"custom_id", "status_code", "created", "attempts"}] * 2
    assert rows[1]["attempts"] == 0
    report = second.deep()
    assert report.problems == []
    totals = second.success["totals"]
    assert (totals["rows"], totals["succeeded"], totals["failed"], totals["skipped"]) == (7, 3, 0, 4)
    assert second.success["skip"] == list(second.skip)
    assert "4 rows skipped" in str(status(str(second.out)))


def test_exports_reports_and_differences_know_skipped_rows(second: Skipping, first: Skipping) -> None:
    pytest.importorskip("matplotlib")
    second.go()
    target = second.out.parent / "all.jsonl"
    assert export(str(second.out), str(target)).lines == 3
    assert [json.loads(line)["custom_id"] for line in target.read_text().splitlines()] == [
        "x",
        "c",
        "s.parquet:3",
    ]
    errors = second.out.parent / "errors.jsonl"
    assert export(str(second.out), str(target), str(errors)).failed == 0 and errors.read_text() == ""
    page = Path(write_report(str(second.out), str(second.out.parent / "page.html"))).read_text()
    assert "rows left to another output" in page and "unknown" not in page
    assert diff(str(first.out), str(second.out)).found.changed >= 0


def test_a_retry_leaves_skipped_rows_alone(second: Skipping) -> None:
    bad = second.prompts["s.parquet"][0]
    second.go(Echo(failing=[bad]))
    assert second.deep().problems == []
    assert second.go(begin=reopen) == [bad]
    assert second.table("s.parquet")["status_code"].to_pylist() == [200, 208, 200, 200, 208, 208]
    assert second.deep().problems == []


def test_a_killed_run_goes_on_and_skips_the_rest(second: Skipping) -> None:
    with pytest.raises(Killed):
        second.go(Echo(fatal=2))
    second.go()
    assert second.table("s.parquet")["status_code"].to_pylist() == [200, 208, 200, 200, 208, 208]
    assert second.deep().problems == []


def test_the_outputs_of_all_runs_are_remembered(second: Skipping, first: Skipping) -> None:
    second.go()
    second.skip = ()
    second.rows("u.parquet", ["d"])
    assert second.go() == second.prompts["u.parquet"]
    assert second.success["skip"] == [str(first.out)]
    assert second.deep().problems == []
    assert second.table("t.parquet")["status_code"].to_pylist() == [208]


def test_outputs_that_are_skipped_later_are_noted_while_the_job_is_under_way(
    second: Skipping, first: Skipping
) -> None:
    skip, second.skip = second.skip, ()
    with pytest.raises(Killed):
        second.go(Echo(fatal=1))
    second.skip = skip
    with pytest.raises(Killed):
        second.go(Echo(fatal=1))
    second.skip = ()
    second.go()
    assert second.success["skip"] == list(skip)
    assert second.deep().problems == []


def test_verify_finds_a_row_that_was_skipped_but_has_no_answer_anywhere(
    second: Skipping, first: Skipping
) -> None:
    second.go()
    record = second.success
    (second.out / "_SUCCESS").write_text(json.dumps({k: v for k, v in record.items() if k != "skip"}))
    assert "names no output" in verify(str(second.out)).problems[0]
    (second.out / "_SUCCESS").write_text(json.dumps(record))
    first.rows("s.parquet", ["a", "b"], "w")
    shutil.rmtree(first.out)
    first.go()
    assert verify(str(second.out)).problems == []
    assert any("'d' was skipped, but has no answer in" in problem for problem in second.deep().problems)


def test_what_is_no_other_output_is_refused_before_anything_is_written(second: Skipping) -> None:
    second.skip = (str(second.input),)
    with pytest.raises(OutputError, match="no job has begun there"):
        second.go()
    second.skip = (str(second.out),)
    with pytest.raises(ConfigError, match="the job's own output"):
        second.go()
    assert not second.out.exists()
