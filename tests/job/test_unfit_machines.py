"""Whole runs in which llama.cpp dies: no innocent row is condemned, whatever the input (issue 9, item 3)."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import WorkersExhausted
from pipeline.files.storage import Storage
from pipeline.input.shards import ShardPlan, list_shards, plan_shard
from pipeline.job.actors.pool import Done, Event, Lost
from pipeline.job.assignment import Assignment
from pipeline.job.run import Run
from pipeline.job.trust import TRIALS
from pipeline.job.worker import Identity, Worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from pipeline.request.rows import Row
from pipeline.tally import Tally
from tests.in_process import InProcess
from tests.job.test_run import Silent

Deadly = Callable[[str, int], bool]
"""Whether a machine's llama.cpp dies of a row."""


class Dead(Exception):
    """The worker's process died."""


class Mortal:
    """A responder on a machine, which dies with its worker."""

    kind = "generate"

    def __init__(self, answers: Answers, machine: str, deadly: Deadly) -> None:
        self.answers, self.machine, self.deadly = answers, machine, deadly

    def respond(self, rows: list[Row], attempts: int) -> list[dict[str, object]]:
        if any(self.deadly(self.machine, int(row.custom_id)) for row in rows):
            raise Dead
        generation = Generation("so", (1,), "stop", 2, 0)
        return [self.answers.completion(row, [generation], attempts) for row in rows]


class Ward(InProcess):
    """A pool of mortal workers, one or more on each machine."""

    def __init__(self, job: JobConfig, manifest: Manifest, slots: dict[str, int], deadly: Deadly) -> None:
        super().__init__(manifest)
        self.job, self.slots, self.deadly = job, slots, deadly
        self.random, self.numbers = random.Random(1), count()
        self.ready: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}
        self.work: list[tuple[str, Assignment, dict[str, ShardPlan]]] = []
        self.avoided: set[str] = set()
        self.deaths = 0

    @property
    def machines(self) -> dict[str, str]:
        return {machine: machine for machine in self.slots}

    @property
    def kernels(self) -> dict[str, str]:
        return {machine: machine for machine in self.slots}

    def end(self) -> None: ...

    def avoid(self, machine: str) -> None:
        self.avoided.add(machine)

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        assert self.ready[worker] not in self.avoided
        self.work.append((worker, assignment, plans))

    def events(self, timeout: float) -> Iterator[Event]:
        for worker, machine in list(self.ready.items()):
            if machine in self.avoided:
                yield self.lose(worker, False)
        for machine, slots in self.slots.items():
            for _ in range(
                0 if machine in self.avoided else slots - list(self.ready.values()).count(machine)
            ):
                self.start(machine)
        if self.work:
            yield self.perform(*self.work.pop(self.random.randrange(len(self.work))))

    def start(self, machine: str) -> None:
        name = f"{machine}-{next(self.numbers)}"
        answers = Answers("m", self.manifest.fingerprint.digest, pa.schema([]))
        identity = Identity("m", self.manifest.fingerprint.digest)
        responder = Mortal(answers, machine, self.deadly)
        self.workers[name] = Worker(self.job, identity, self.manifest, responder)  # type: ignore[arg-type]
        self.ready[name] = machine

    def perform(self, name: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> Event:
        worker, tally = self.workers[name], Tally()
        try:
            for chunk in assignment.chunks:
                plan = plans[chunk.shard]
                if assignment.control:
                    tally += worker.prove(plan, chunk)
                else:
                    tally += worker.process(plan, chunk, assignment.attempt, assignment.condemned)
        except Dead:
            self.deaths += 1
            return self.lose(name, True)
        return Done(name, assignment, tally)

    def lose(self, worker: str, blame: bool) -> Lost:
        del self.ready[worker]
        self.work = [item for item in self.work if item[0] != worker]
        return Lost(worker, blame, "it died of SIGSEGV")


def condemned(folder: Path) -> set[int]:
    files = [path for path in (folder / "out").rglob("*.parquet") if path.name != "usage.parquet"]
    rows = [row for path in files if path.is_file() for row in pq.read_table(path).to_pylist()]
    return {int(row["custom_id"]) for row in rows if row["error"]}


def play(folder: Path, sizes: list[int], slots: dict[str, int], deadly: Deadly) -> Ward:
    """Raises WorkersExhausted."""
    (folder / "in").mkdir(exist_ok=True)
    first = 0
    for number, size in enumerate(sizes):
        names = [str(first + row) for row in range(size)]
        table = pa.table({"custom_id": names, "prompt": names}, schema=SCHEMA)
        pq.write_table(table, folder / f"in/s{number}.parquet")
        first += size
    plans = [plan_shard(shard) for shard in list_shards(str(folder / "in"))]
    paths = {"input": {"path": str(folder / "in")}, "output": {"path": str(folder / "out")}}
    job = JobConfig.model_validate({"model": {"path": "m"}, "retry": {"max_failures": 1}, **paths})
    about = {"name": "j", "input": job.input.path, "job": job.model_dump(mode="json")}
    manifest = Manifest(Storage.at(job.output.path), Fingerprint.of(job, "0" * 64, plans), about)
    manifest.begin()
    run = Run(job.retry, plans, manifest)
    run.take_stock()
    ward = Ward(job, manifest, slots, deadly)
    run.work(ward, ward, Silent(), first_rows=64)
    manifest.finish(plans)
    return ward


SCHEMA = pa.schema([("custom_id", pa.string()), ("prompt", pa.string())])
SIZES = st.lists(st.integers(1, 90), min_size=1, max_size=3)
SLOTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 2), min_size=1)


@settings(max_examples=8)
@given(SIZES, SLOTS)
def test_where_it_always_dies_the_job_stops_with_the_signal_and_what_to_do(sizes, slots):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            play(folder, sizes, slots, lambda machine, row: True)
        except WorkersExhausted as error:
            assert "SIGSEGV" in str(error) and "nightherd doctor" in str(error)
        else:
            raise AssertionError("it ended well")
        assert not condemned(folder)


@settings(max_examples=15)
@given(SIZES, SLOTS.filter(lambda slots: len(slots) > 1), st.sampled_from(["node", "kernel"]), st.data())
def test_where_it_dies_on_some_machines_only_rows_that_kill_everywhere_are_condemned(
    sizes, slots, kind, data
):
    """kernel: of its machines, only some rows touch it."""
    rows = sum(sizes)
    broken = set(data.draw(st.lists(st.sampled_from(sorted(slots)), min_size=1, max_size=len(slots) - 1)))
    killers = set(data.draw(st.lists(st.integers(0, rows - 1), max_size=min(rows - 1, TRIALS - 1))))
    touched = set(data.draw(st.lists(st.integers(0, rows - 1))))

    def deadly(machine: str, row: int) -> bool:
        return row in killers or (machine in broken and (kind == "node" or row in touched))

    with tempfile.TemporaryDirectory() as name:
        ward = play(Path(name), sizes, slots, deadly)
        assert condemned(Path(name)) == killers
        assert ward.avoided <= broken
        assert verify(ward.manifest.output.url, deep=True).problems == []


def test_a_row_that_kills_is_condemned_by_a_run_that_has_no_other_row_left(tmp_path):
    """Rows that an earlier run has answered prove the machine."""

    class Stopped(Exception):
        pass

    def stopped(machine: str, row: int) -> bool:
        if row == 7:
            raise Stopped
        return False

    with pytest.raises(Stopped):
        play(tmp_path, [7, 1], {"a": 1}, stopped)
    ward = play(tmp_path, [7, 1], {"a": 1}, lambda machine, row: row == 7)
    assert condemned(tmp_path) == {7}
    assert not ward.avoided
