"""Corpora that grow, change and shrink between runs: each shard ends with its own answers, computed once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
from pipeline.errors import InputError, OutputError, RowError
from pipeline.files.storage import Storage
from pipeline.input.shards import ShardPlan
from pipeline.job.beginning import begin_part, begin_whole, reopen
from pipeline.job.run import Run
from pipeline.model.models import LocalModel
from pipeline.output.committed import CommittedRows
from pipeline.output.export import export
from pipeline.output.records import SUCCESS, read_record
from pipeline.output.verify import verify
from pipeline.plan.corpus import Earlier
from pipeline.plan.opened import OpenJob, opened
from pipeline.plan.try_out import TryOut
from pipeline.report.diff import diff
from pipeline.report.status import status
from pipeline.request.rows import Row
from pipeline.request.schema import CompletionRequest
from tests.faults.disk import on_change
from tests.job.test_run import Silent
from tests.output.test_drafts import Farm, Killed, Mortal

MODEL = LocalModel(Path("m.gguf"), "0" * 64, 1)
NEVER = 1 << 30


class Echo(Mortal):
    """Answers with what it was asked. fatal: the row that kills it. failing: prompts without an answer."""

    def __init__(self, fatal: int = NEVER, failing: Sequence[str] = ()) -> None:
        super().__init__()
        self.fatal, self.failing = fatal, failing
        self.prompts: list[str] = []
        self.answers = Answers("m", "0", pa.schema([]))

    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        return [self.echo(row) for row in rows]

    def echo(self, row: Row) -> dict[str, Any]:
        if isinstance(row.request, RowError):
            return self.answers.error(row.custom_id, row.request, 1)
        assert isinstance(row.request, CompletionRequest)
        if len(self.prompts) >= self.fatal:
            raise Killed
        prompt = str(row.request.prompt)
        self.prompts.append(prompt)
        if prompt in self.failing:
            return self.answers.error(row.custom_id, RowError("invalid_request", "no"), 1)
        return self.answers.completion(row, [Generation(f"to {prompt}", (1, 2), "stop", 5, 1)], 1)


class Deaths:
    """Kills this process, so to say, before the `at`th change to a folder."""

    def __init__(self) -> None:
        self.folder, self.at = "", NEVER
        on_change("/", self.act)

    def act(self, change: str) -> None:
        self.at -= 1
        if self.at == 0:
            raise Killed

    @contextmanager
    def after(self, steps: int) -> Iterator[None]:
        self.at = steps
        try:
            yield
        finally:
            self.at = NEVER


DEATHS = Deaths()


class World:
    """An input and an output. prompts: of the shards that are there now."""

    def __init__(self, folder: Path) -> None:
        self.input, self.out = folder / "in", folder / "out"
        self.input.mkdir(parents=True)
        self.prompts: dict[str, list[str]] = {}
        self.versions = 0
        self.told: list[str] = []

    def write(self, name: str, rows: int) -> None:
        """A new shard, or a new version of one."""
        self.versions += 1
        prompts = [f"{name} v{self.versions} row {n}" for n in range(rows)]
        names = [f"{name}-{n}" for n in range(rows)]
        if name.endswith(".jsonl"):
            lines = [{"custom_id": n, "prompt": p} for n, p in zip(names, prompts, strict=True)]
            (self.input / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        else:
            table = pa.table(
                {"custom_id": pa.array(names, pa.string()), "prompt": pa.array(prompts, pa.string())}
            )
            pq.write_table(table, self.input / name)
        self.prompts[name] = prompts

    def remove(self, name: str) -> None:
        (self.input / name).unlink()
        del self.prompts[name]

    def job(self, changed: str = "refuse", **sections: Any) -> JobConfig:
        paths = {"input": {"path": str(self.input), "changed": changed}, "output": {"path": str(self.out)}}
        return JobConfig.model_validate({"model": {"path": "m.gguf"}, **paths, **sections})

    @contextmanager
    def opened(self, changed: str = "refuse", retries: bool = False, **sections: Any) -> Iterator[OpenJob]:
        self.told = []
        job = self.job(changed, **sections)
        with opened(job, MODEL, self.told.append, retries) as work:
            yield work

    def run(self, changed: str = "refuse", echo: Echo | None = None, begin: Any = begin_whole) -> list[str]:
        """A whole run; the prompts that it had to answer."""
        echo = echo or Echo()
        with self.opened(changed, retries=begin is reopen) as work:
            run = Run(work.config.retry, work.plans, work.manifest)
            commit = begin(work.manifest, run)
            if commit and not run.idle:
                farm = Assembling(work, echo, commit)
                run.work(farm, farm, Silent(), first_rows=4)
            work.manifest.finish(work.plans)
        return echo.prompts

    def answers(self) -> dict[str, list[str]]:
        """The texts of each shard that is finished."""
        folder = self.out / "responses"
        files = {path.stem: path for path in folder.glob("*.parquet")} if folder.exists() else {}
        return {name: pq.read_table(path)["text"].to_pylist() for name, path in files.items()}

    def right(self) -> dict[str, list[str]]:
        return {Path(name).stem: [f"to {p}" for p in prompts] for name, prompts in self.prompts.items()}

    @property
    def success(self) -> dict[str, Any]:
        return read_record(Storage.at(str(self.out)), SUCCESS) or {}

    def problems(self) -> list[str]:
        return verify(str(self.out), deep=True).problems


class Assembling(Farm):
    def __init__(self, work: OpenJob, echo: Echo, commit: Callable[[ShardPlan], Any]) -> None:
        super().__init__(work.config, work.manifest, echo)
        self.commit = commit

    def put(self, plan: ShardPlan) -> None:
        self._assembled.append(self.commit(plan))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.write("a.parquet", 6)
    world.write("b.jsonl", 3)
    assert len(world.run()) == 9
    return world


def test_a_finished_job_takes_on_new_shards_alone_and_reads_no_finished_one(world: World) -> None:
    world.write("c.parquet", 5)
    world.write("d.jsonl", 0)
    # Whoever opened it would find another file.
    before, path = (world.input / "b.jsonl").stat(), world.input / "b.jsonl"
    data = path.read_bytes()
    path.write_bytes(b"x" * len(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert world.run() == world.prompts["c.parquet"]
    path.write_bytes(data)
    assert "new in the input: 2 shards: c.parquet, d.jsonl" in world.told
    assert world.answers() == world.right()
    assert world.problems() == []
    assert world.run() == [] and world.told == []


def test_success_tells_what_each_run_added(world: World) -> None:
    world.write("c.parquet", 5)
    world.run()
    first, second = world.success["runs"]
    assert (first["shards"], first["rows"], second["shards"], second["rows"]) == (2, 9, 1, 5)
    assert first["total_tokens"] + second["total_tokens"] == world.success["totals"]["total_tokens"]
    assert first["finished"] < second["finished"] <= world.success["finished"]
    assert world.success["shards"] == {"a.parquet": 6, "b.jsonl": 3, "c.parquet": 5}
    shown = str(status(str(world.out)))
    assert "run 1: " in shown and "added 1 shard with 5 rows; 35 tokens" in shown
    usage = pq.read_table(world.out / "usage.parquet").to_pylist()
    assert {row["shard"]: row["rows"] for row in usage} == world.success["shards"]


def test_a_job_under_way_takes_on_new_shards(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("a.parquet", 20)
    world.write("b.parquet", 3)
    dying = Echo(fatal=9)
    with pytest.raises(Killed):
        world.run(echo=dying)
    world.write("c.parquet", 4)
    again = world.run()
    assert set(world.prompts["c.parquet"]) <= set(again)
    assert world.answers() == world.right() and world.problems() == []
    assert [run["rows"] for run in world.success["runs"]] == [27]


def test_shards_that_changed_or_went_are_named_and_refused_before_anything_is_written(world: World) -> None:
    world.write("a.parquet", 8)
    world.remove("b.jsonl")
    world.write("c.parquet", 1)
    before = {path: path.read_bytes() for path in world.out.rglob("*") if path.is_file()}
    with pytest.raises(OutputError) as refused:
        world.run()
    message = str(refused.value)
    assert (
        "input.changed" in message and "a.parquet: 8 rows, was 6; " in message and " bytes, was " in message
    )
    assert "b.jsonl: is gone" in message and "c.parquet" not in message
    assert {path: path.read_bytes() for path in world.out.rglob("*") if path.is_file()} == before


def test_a_file_that_was_written_anew_as_it_was_has_not_changed(world: World) -> None:
    data = (world.input / "a.parquet").read_bytes()
    (world.input / "a.parquet").unlink()
    (world.input / "a.parquet").write_bytes(data)
    world.write("c.parquet", 1)
    assert world.run() == world.prompts["c.parquet"]


def test_redo_answers_changed_shards_again_and_removes_what_is_gone(world: World) -> None:
    world.write("a.parquet", 6)
    world.remove("b.jsonl")
    assert world.run("redo") == world.prompts["a.parquet"]
    assert any("changed, and answered again: a.parquet: " in line for line in world.told)
    assert any("its answers are removed: b.jsonl: is gone" in line for line in world.told)
    assert world.answers() == world.right()
    assert world.problems() == []
    assert [(run["shards"], run["rows"]) for run in world.success["runs"]] == [(2, 9), (1, 6)]


def test_keep_leaves_answers_as_they_are_until_they_are_wanted_anew(world: World) -> None:
    kept = world.answers()
    world.write("a.parquet", 7)
    world.remove("b.jsonl")
    world.write("c.parquet", 2)
    assert world.run("keep") == world.prompts["c.parquet"]
    assert world.answers() == kept | {"c": world.right()["c"]}
    report = verify(str(world.out), deep=True)
    assert report.problems == [] and report.totals.rows == 11
    assert "2 shards that changed or went away" in report.notes[0] and "a.parquet, b.jsonl" in report.notes[0]
    assert world.run("keep") == []
    assert export(str(world.out), str(world.out.parent / "all.jsonl")).lines == 11
    with pytest.raises(OutputError, match=r"a\.parquet: 7 rows, was 6"):
        world.run()
    assert world.run("redo") == world.prompts["a.parquet"]
    assert world.answers() == world.right() and world.problems() == []


def test_what_is_half_answered_is_not_kept_but_answered_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("a.parquet", 300)
    world.write("b.parquet", 2)
    with pytest.raises(Killed):
        world.run(echo=Echo(fatal=100))
    world.write("a.parquet", 300)
    world.remove("b.parquet")
    assert world.run("keep") == world.prompts["a.parquet"]
    assert world.answers() == world.right() and world.problems() == []


def test_a_retry_leaves_new_shards_alone_and_run_takes_them_on_in_its_midst(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("a.parquet", 6)
    world.write("b.parquet", 3)
    bad = [world.prompts["a.parquet"][2], world.prompts["b.parquet"][1]]
    world.run(echo=Echo(failing=bad))
    world.write("c.parquet", 4)
    assert world.run(begin=reopen) == bad
    assert any("left for nightherd run: 1 shard: c.parquet" in line for line in world.told)
    assert set(world.answers()) == {"a", "b"}
    assert world.run() == world.prompts["c.parquet"]
    assert world.answers() == world.right() and world.problems() == []
    first, retried, last = world.success["runs"]
    assert (retried["retry"], retried["rows"], last["rows"]) == (1, 2, 4)
    assert (
        sum(run["total_tokens"] for run in (first, retried, last)) == world.success["totals"]["total_tokens"]
    )


def test_new_shards_are_taken_on_in_the_midst_of_a_retry(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write("a.parquet", 6)
    world.write("b.parquet", 3)
    bad = [world.prompts["a.parquet"][2], world.prompts["b.parquet"][1]]
    world.run(echo=Echo(failing=bad))
    with pytest.raises(Killed):
        world.run(echo=Echo(fatal=1), begin=reopen)
    world.write("c.parquet", 4)
    again = world.run()
    assert set(world.prompts["c.parquet"]) <= set(again) <= {*bad, *world.prompts["c.parquet"]}
    assert world.answers() == world.right() and world.problems() == []
    assert world.success["retry"] == 1
    assert [run.get("retry") for run in world.success["runs"]] == [None, 1, None]
    assert world.run(begin=reopen) == []
    assert world.success["retry"] == 2


def test_a_finished_job_is_not_opened_again_for_a_try_out(world: World) -> None:
    world.write("c.parquet", 4)
    with world.opened() as work, pytest.raises(OutputError, match="answers new shards"):
        part = TryOut(2).choose(work.plans)
        begin_part(part, work.manifest, Run(work.config.retry, work.plans, work.manifest))
    assert (world.out / "_SUCCESS").exists() and not (world.out / "_work").exists()


def test_a_driver_that_began_with_fewer_shards_does_not_end_the_job(world: World) -> None:
    world.write("c.parquet", 4)
    with world.opened() as slow:
        slow.manifest.begin()
        world.write("d.parquet", 4)
        with world.opened() as fast:
            fast.manifest.begin()
        with pytest.raises(OutputError, match="other shards"):
            slow.manifest.finish(slow.plans)
    assert set(world.run()) == {*world.prompts["c.parquet"], *world.prompts["d.parquet"]}
    assert world.problems() == []


def test_two_drivers_that_take_on_different_shards_from_one_record_do_not_mix(world: World) -> None:
    world.write("c.parquet", 4)
    with world.opened() as first:
        world.write("d.parquet", 4)
        with world.opened() as second:
            second.manifest.begin()
        with pytest.raises(OutputError, match="run this one again"):
            first.manifest.begin()
    world.run()
    assert world.answers() == world.right() and world.problems() == []


def test_a_worker_that_slept_through_a_change_puts_nothing_in_the_new_versions_place(world: World) -> None:
    world.write("c.parquet", 4)
    with world.opened() as slow:
        slow.manifest.begin()
        stale = Farm(slow.config, slow.manifest, Echo()).worker
        (old,) = [plan for plan in slow.plans if plan.shard.name == "c.parquet"]
        chunk = old.whole
        assert chunk
        shutil.copy(world.input / "c.parquet", world.input / ".c")
        world.write("c.parquet", 4)
        with world.opened("redo") as work:
            work.manifest.begin()
        # It has read its rows before.
        new = (world.input / "c.parquet").read_bytes()
        shutil.copy(world.input / ".c", world.input / "c.parquet")
        with pytest.raises((OutputError, FileNotFoundError)):
            stale.process(old, chunk)
        (world.input / "c.parquet").write_bytes(new)
    (world.input / ".c").unlink()
    assert world.run("redo") == world.prompts["c.parquet"]
    assert world.answers() == world.right() and world.problems() == []


def test_a_worker_that_slept_through_the_end_of_a_shard_leaves_nothing_behind(world: World) -> None:
    world.write("c.parquet", 4)
    with world.opened() as slow:
        slow.manifest.begin()
        stale = Farm(slow.config, slow.manifest, Echo()).worker
        (old,) = [plan for plan in slow.plans if plan.shard.name == "c.parquet"]
        chunk, data = old.whole, (world.input / "c.parquet").read_bytes()
        assert chunk
        world.remove("c.parquet")
        assert world.run("redo") == []
        (world.input / "c.parquet").write_bytes(data)
        with pytest.raises(FileNotFoundError):
            stale.process(old, chunk)
        (world.input / "c.parquet").unlink()
    assert world.answers() == world.right() and world.problems() == []


def test_answers_to_another_version_are_not_taken_for_the_jobs_own(world: World) -> None:
    world.write("a.parquet", 6)
    with world.opened("redo") as work:
        stale = (world.out / "responses/a.parquet").read_bytes()
        work.manifest.begin()
        # As if the driver had died before it removed them.
        (world.out / "responses/a.parquet").write_bytes(stale)
    rows = CommittedRows.at(str(world.out))
    assert [len(t) for _, t in rows.tables("a.parquet", lambda schema: schema.names, 100)] == []
    assert status(str(world.out)).rows_done == 3
    assert world.run("redo") == world.prompts["a.parquet"]
    assert world.answers() == world.right() and world.problems() == []


def test_an_answer_of_another_version_in_a_finished_output_is_a_problem(world: World) -> None:
    stale = (world.out / "responses/a.parquet").read_bytes()
    world.write("a.parquet", 6)
    world.run("redo")
    (world.out / "responses/a.parquet").write_bytes(stale)
    assert any("another version of the shard" in problem for problem in world.problems())


def test_answers_that_are_lost_are_computed_again_if_their_file_is_as_it_was(world: World) -> None:
    with world.opened() as work:
        assert all(plan.recorded for plan in work.plans)
    world.write("c.parquet", 2)
    (world.out / "responses/b.parquet").unlink()
    assert set(world.run()) == {*world.prompts["b.jsonl"], *world.prompts["c.parquet"]}
    assert world.problems() == []


def test_kept_answers_that_are_lost_can_not_be_had_again(world: World) -> None:
    world.write("a.parquet", 7)
    world.write("c.parquet", 1)
    with world.opened("keep") as work:
        (world.out / "responses/a.parquet").unlink()
        with pytest.raises(InputError, match=r"a\.parquet: its answers have gone"):
            begin_whole(work.manifest, Run(work.config.retry, work.plans, work.manifest))


def test_diff_and_the_settings_of_outputs_of_several_runs(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    other.write("a.parquet", 6)
    other.run()
    world.write("c.parquet", 2)
    world.run()
    found = diff(str(world.out), str(other.out))
    assert found.only_before == ["b.jsonl", "c.parquet"]
    assert not any("stamp" in line or ".run" in line for line in found.settings)


def old(world: World) -> None:
    """Makes the output one of an earlier version, which knew no sources."""
    from dataclasses import replace as changed

    from pipeline.input.parquet import footer_digest
    from pipeline.output.assembly import write_table
    from pipeline.output.fingerprint import Fingerprint
    from pipeline.output.footer import read_footer

    record = world.success
    entries = record["record"]["input"]
    record["record"]["input"] = {
        name: {key: entry[key] for key in ("rows", "size", "digest")} for name, entry in entries.items()
    }
    digest = Fingerprint(record["record"], format=1).digest
    for path in (world.out / "responses").glob("*.parquet"):
        footer, table = read_footer(pq.ParquetFile(path)), pq.read_table(path).replace_schema_metadata(None)
        with path.open("wb") as file:
            write_table(file, [table], changed(footer, fingerprint=digest, source=""))
        with pa.OSFile(str(path)) as file:
            record["digests"][footer.shard] = footer_digest(file)
    for name in ("format", "runs"):
        del record[name]
    (world.out / "_SUCCESS").write_text(json.dumps(record | {"fingerprint": digest}))


def test_an_output_of_an_earlier_version_is_read_and_run_as_it_is(world: World) -> None:
    old(world)
    assert world.problems() == []
    assert status(str(world.out)).rows_done == 9
    assert export(str(world.out), str(world.out.parent / "all.jsonl")).lines == 9
    assert world.run() == []
    assert world.run(begin=reopen) == []
    assert world.problems() == []
    world.write("c.parquet", 1)
    with pytest.raises(OutputError, match=r"an earlier version.*another output"):
        world.run()
    with pytest.raises(OutputError, match=r"an earlier version.*another output"):
        world.run("redo")


def test_an_output_of_a_newer_version_is_refused(world: World) -> None:
    record = world.success
    (world.out / "_SUCCESS").write_text(json.dumps(record | {"format": 3}))
    with pytest.raises(OutputError, match="newer version"):
        world.run()


def test_a_setting_that_differs_is_named_without_the_shards(world: World) -> None:
    world.write("c.parquet", 1)
    with (
        pytest.raises(OutputError) as refused,
        world.opened(request={"defaults": {"seed": 3}}) as work,
    ):
        work.manifest.begin()
    assert "request.defaults.seed: 3, but was absent" in str(refused.value)
    assert "input." not in str(refused.value)


NAMES = ["a.parquet", "b.jsonl", "c.parquet"]
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from([0, 1, 5, 9])),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("run"), st.just(""), st.just(0)),
    st.tuples(st.just("die at a row"), st.just(""), st.integers(0, 12)),
    st.tuples(st.just("die at a change"), st.just(""), st.integers(1, 60)),
)


class Life:
    """A world in which things happen. policy: of all runs."""

    def __init__(self, folder: Path, policy: str) -> None:
        self.world, self.policy = World(folder), policy
        self.world.write("z.parquet", 2)

    def happens(self, what: str, name: str, number: int) -> None:
        if what == "write":
            self.world.write(name, number)
        elif what == "remove" and name in self.world.prompts:
            self.world.remove(name)
        elif what == "run":
            self.run(NEVER, NEVER)
        elif what == "die at a row":
            self.run(number, NEVER)
        elif what == "die at a change":
            self.run(NEVER, number)

    def run(self, fatal: int, steps: int) -> None:
        before = self.finished()
        echo = Echo(fatal)
        with suppress(Killed), DEATHS.after(steps):
            self.world.run(self.policy, echo)
        again = {prompt for prompts in before.values() for prompt in prompts} & set(echo.prompts)
        assert not again, "answers that were whole were computed again"
        assert len(set(echo.prompts)) == len(echo.prompts)
        assert self.world.success or (self.world.out / "_work/job.json").exists() or not self.world.answers()
        if self.policy == "keep":
            after = self.finished()
            assert {name: after[name] for name in before} == before

    def finished(self) -> dict[str, list[str]]:
        """The prompts that the whole answers are to, of the versions that the record has."""
        record = Earlier.at(Storage.at(str(self.world.out))) if self.world.out.exists() else None
        if record is None or record.seen is None:
            return {}
        rows = CommittedRows.at(str(self.world.out))
        found = {}
        for name in record.seen:
            with suppress(OutputError):
                tables = [t for _, t in rows.tables(name, lambda s: ["custom_id", "text"], 100)]
                texts = [text for table in tables for text in table["text"].to_pylist()]
                if (self.world.out / f"responses/{Path(name).stem}.parquet").exists():
                    found[name] = [text.removeprefix("to ") for text in texts]
        return found


@pytest.mark.parametrize("policy", ["redo", "keep"])
@given(steps=st.lists(STEPS, max_size=7))
@settings(max_examples=12)
def test_whatever_happens_to_a_corpus_each_shard_ends_with_its_answers(
    tmp_path_factory: pytest.TempPathFactory, policy: str, steps: list[tuple[str, str, int]]
) -> None:
    life = Life(tmp_path_factory.mktemp("life"), policy)
    for step in steps:
        life.happens(*step)
    life.run(NEVER, NEVER)
    world = life.world
    assert world.problems() == []
    assert list(world.out.glob("_work/*")) == []
    if policy == "redo":
        assert world.answers() == world.right()
    else:
        assert world.answers().keys() >= world.right().keys()
