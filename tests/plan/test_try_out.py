"""A try-out answers some rows of a job in the job's own output, and the whole job keeps their answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import JobConfig
from pipeline.errors import ConfigError, InputError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, Shard, ShardPlan, list_shards, plan_shard
from pipeline.job.run import Run
from pipeline.output.committed import CommittedRows
from pipeline.output.export import export
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.tried_out import write_tried_out
from pipeline.output.verify import verify
from pipeline.plan.try_out import Part, TryOut, rows_of, try_out
from tests.job.test_run import Silent
from tests.output.test_drafts import Farm, Mortal

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any)


def plans(sizes: list[int]) -> list[ShardPlan]:
    return [
        ShardPlan(Shard(f"{n}.parquet", f"/{n}", 1, ""), rows, "0", ("prompt",))
        for n, rows in enumerate(sizes)
    ]


def numbers(part: Part) -> set[tuple[str, int]]:
    rows = [(c.shard, n) for chunks in part.values() for c in chunks for n in range(c.start, c.stop)]
    assert len(rows) == len(set(rows)) == rows_of(part)
    return set(rows)


@given(SIZES, st.integers(1, 99), st.integers(1, 99), st.booleans())
def test_a_smaller_try_outs_rows_are_a_larger_ones_too(
    sizes: list[int], one: int, other: int, by_chance: bool
) -> None:
    small, large = (numbers(TryOut(n, by_chance).choose(plans(sizes))) for n in sorted((one, other)))
    assert small <= large
    assert len(small) == min(sum(sizes), one, other)


@given(SIZES, st.integers(1, 99), st.integers(1, 9))
def test_rows_may_be_drawn_together_with_their_neighbours(sizes: list[int], rows: int, block: int) -> None:
    part = TryOut(rows, by_chance=True, block=block).choose(plans(sizes))
    assert min(rows, sum(sizes)) <= len(numbers(part)) < rows + block
    assert all(chunk.start % block == 0 for chunks in part.values() for chunk in chunks)


def test_a_limit_takes_the_first_rows_in_the_order_of_the_shards() -> None:
    assert TryOut(5).choose(plans([3, 0, 9])) == {
        "0.parquet": [Chunk("0.parquet", 0, 3)],
        "2.parquet": [Chunk("2.parquet", 0, 2)],
    }


def test_a_sample_is_drawn_from_all_shards_alike() -> None:
    part = TryOut(600, by_chance=True).choose(plans([1000, 1000, 1000]))
    assert all(150 < sum(chunk.rows for chunk in part[name]) < 250 for name in part)


@pytest.mark.parametrize(
    ("limit", "sample", "message"),
    [(3, 4, "choose one"), (0, None, "--limit 0: expected"), (None, -1, "--sample -1: expected a number")],
)
def test_what_makes_no_try_out_is_refused(limit: int | None, sample: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        try_out(limit, sample)


def test_an_input_without_rows_can_not_be_tried_out() -> None:
    with pytest.raises(InputError, match="--limit: the input has no rows"):
        TryOut(3).choose(plans([0]))


class Case:
    """A job over shards of prompts, with one worker in this process."""

    def __init__(self, folder: Path, shards: Mapping[str, int]) -> None:
        (folder / "in").mkdir()
        for name, rows in shards.items():
            names = [f"{name}{number}" for number in range(rows)]
            pq.write_table(pa.table({"custom_id": names, "prompt": names}), folder / f"in/{name}.parquet")
        paths = {"input": {"path": str(folder / "in")}, "output": {"path": str(folder / "out")}}
        self.job = JobConfig.model_validate({"model": {"path": "m"}, **paths})
        self.out = folder / "out"
        self.plans = [plan_shard(shard) for shard in list_shards(str(folder / "in"))]
        self.rows = sum(plan.rows for plan in self.plans)

    def run(self, part: Part | None = None) -> list[str]:
        """The names of the rows that had to be answered."""
        prints = Fingerprint.of(self.job, "0" * 64, self.plans)
        self.manifest = Manifest(Storage.at(str(self.out)), prints, {"input": self.job.input.path})
        self.manifest.begin()
        run, responder = Run(self.job.retry, self.plans, self.manifest), Mortal()
        run.take_stock(part)
        farm = Farm(self.job, self.manifest, responder)
        run.work(farm, farm, Silent())
        assert all(times == 1 for times in responder.asked.values())
        return list(responder.asked)

    def try_out(self, asked: TryOut) -> list[str]:
        part = asked.choose(self.plans)
        answered = self.run(part)
        write_tried_out(CommittedRows.at(str(self.out)), part)
        return answered

    def tried_out(self) -> list[str]:
        names: list[str] = pq.read_table(self.out / "tryout.parquet").column("custom_id").to_pylist()
        return names


@pytest.mark.parametrize("by_chance", [False, True])
def test_a_larger_try_out_and_the_whole_job_answer_only_what_is_missing(
    tmp_path: Path, by_chance: bool
) -> None:
    case = Case(tmp_path, {"a": 30, "b": 300, "c": 0})
    first = case.try_out(TryOut(20, by_chance))
    assert sorted(first) == sorted(case.tried_out())
    assert case.try_out(TryOut(20, by_chance)) == []
    more = case.try_out(TryOut(50, by_chance))
    assert len(more) == 30
    assert sorted(case.tried_out()) == sorted([*first, *more])
    assert not (case.out / "_SUCCESS").exists()
    rest = case.run()
    assert len(rest) == case.rows - 50
    assert not {*first, *more} & set(rest)
    case.manifest.finish(case.plans)
    assert verify(str(case.out), deep=True).problems == []
    assert not (case.out / "tryout.parquet").exists()


def test_a_try_outs_file_has_the_columns_of_the_responses_in_the_inputs_order(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a": 30, "b": 40})
    case.try_out(TryOut(25, by_chance=True))
    tried = pq.read_table(case.out / "tryout.parquet")
    exported = tmp_path / "part.jsonl"
    assert export(str(case.out), str(exported), partial=True).lines == 25
    case.run()
    names = [
        name
        for shard in "ab"
        for name in pq.read_table(case.out / f"responses/{shard}.parquet")["custom_id"].to_pylist()
    ]
    assert tried["custom_id"].to_pylist() == [
        name for name in names if name in set(tried["custom_id"].to_pylist())
    ]
    assert (
        tried.schema.remove_metadata() == pq.read_schema(case.out / "responses/a.parquet").remove_metadata()
    )


def test_a_try_out_of_all_rows_commits_the_shards(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a": 3, "b": 300})
    assert len(case.try_out(TryOut(1000))) == 303
    assert len(case.tried_out()) == 303
    assert (case.out / "responses/b.parquet").exists()
    assert case.run() == []


def test_a_try_out_keeps_what_a_stopped_job_has_answered(tmp_path: Path) -> None:
    case = Case(tmp_path, {"a": 600})
    case.try_out(TryOut(100))
    assert len(case.try_out(TryOut(200, by_chance=True))) < 200
    assert len(case.run()) + 100 < 600
