"""Workers on machines that answer, die of poison rows or of their machine, or are killed at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pipeline.input.shards import CHUNK_ROWS, Chunk, Shard, ShardPlan
from pipeline.job.assignment import Assignment
from pipeline.job.coordinator import HELD, SUSPECT_ROWS, Coordinator
from pipeline.tally import Tally

Row = tuple[str, int]
Deadly = Callable[[str, Row], bool]
"""Whether a machine's llama.cpp dies of a row."""


def plan(name: str, rows: int) -> ShardPlan:
    return ShardPlan(Shard(name, f"in/{name}", rows, ""), rows, "", ("prompt",))


def rows_of(chunks: Iterable[Chunk]) -> list[Row]:
    """Row 0 stands for a shard without rows: it must be visited once as well."""
    return [(c.shard, row) for c in chunks for row in range(c.start, max(1, c.stop))]


def every_row(sizes: list[int]) -> list[Row]:
    return [(f"s{number}", row) for number, size in enumerate(sizes) for row in range(max(1, size))]


class Farm:
    """hogs: rows that fill the memory, so that their worker or any other is killed. workers: on each machine.

    stopped: whether no machine was left to go on with.
    """

    def __init__(
        self,
        sizes: list[int],
        workers: int | Mapping[str, int],
        poison: set[Row],
        kills: float,
        seed: int,
        hogs: frozenset[Row] = frozenset(),
        deadly: Deadly = lambda machine, row: False,
    ) -> None:
        self.random = random.Random(seed)
        machines = {"m0": workers} if isinstance(workers, int) else workers
        self.workers = {
            f"w{number}-{name}": name for name, count in machines.items() for number in range(count)
        }
        self.coordinator = Coordinator(workers=len(self.workers))
        self.coordinator.machines = set(machines)
        self.poison, self.kills, self.hogs, self.deadly = poison, kills, hogs, deadly
        self.answered: Counter[Row] = Counter()
        self.condemned: set[Row] = set()
        self.complete: list[str] = []
        self.stopped = False
        self.deaths = self.streak = self.longest_streak = 0
        for number, rows in enumerate(sizes):
            if not self.coordinator.add(plan(f"s{number}", rows)):
                self.complete.append(f"s{number}")

    def run(self) -> Farm:
        for _ in range(100_000):
            if self.coordinator.idle or self.stopped:
                return self
            self.turn(self.random.choice(sorted(self.workers)))
        raise AssertionError("the job doesn't end")

    def turn(self, worker: str) -> None:
        while self.coordinator.assign(worker, self.workers[worker]):
            pass
        held = self.coordinator.held(worker)
        assert len(held) <= HELD
        assert len(held) == 1 or not any(a.alone for a in held)
        assert all(a.rows <= (SUSPECT_ROWS if a.alone and not a.exclusive else CHUNK_ROWS) for a in held)
        if held:
            self.work(worker, held)

    def work(self, worker: str, held: tuple[Assignment, ...]) -> None:
        if any(self.fills_memory(other) for other in self.workers if other != worker):
            if self.random.random() < 0.5:
                self.die(worker, held, blame=False, memory=True)
        elif self.fills_memory(worker):
            self.die(worker, held, blame=False, memory=True)
        elif any(self.kill(worker, row) for a in held if not a.condemned for row in rows_of(a.chunks)):
            self.die(worker, held, blame=True)
        elif self.random.random() < self.kills:
            self.die(worker, held, blame=False)
        else:
            self.streak = 0
            self.answer(held[0])
            self.complete += self.names(self.coordinator.complete(worker, held[0], tally_of(held[0])))

    def kill(self, worker: str, row: Row) -> bool:
        return row in self.poison or self.deadly(self.workers[worker], row)

    def fills_memory(self, worker: str) -> bool:
        held = self.coordinator.held(worker)
        return any(row in self.hogs for a in held if not a.condemned for row in rows_of(a.chunks))

    def die(self, worker: str, held: tuple[Assignment, ...], blame: bool, memory: bool = False) -> None:
        self.deaths += 1
        self.streak += 1
        self.longest_streak = max(self.longest_streak, self.streak)
        chunks = [c for a in held if not a.control for c in a.chunks if not self.spoiled(worker, c)]
        committed = [Assignment(0, (self.part(c),)) for c in chunks if self.random.random() < 0.3]
        for assignment in committed:
            self.answer(assignment)
        known = {assignment.chunks[0]: tally_of(assignment) for assignment in committed}
        self.complete += self.names(self.coordinator.lost(worker, blame, known, memory))
        self.stopped = self.coordinator.machines <= self.coordinator.barred

    def part(self, chunk: Chunk) -> Chunk:
        """The whole chunk, or what a draft held of it."""
        if chunk.rows < 2 or self.random.random() < 0.5:
            return chunk
        start = self.random.randrange(chunk.start, chunk.stop)
        return Chunk(chunk.shard, start, self.random.randint(start + 1, chunk.stop))

    def answer(self, assignment: Assignment) -> None:
        if not assignment.control:
            self.answered.update(rows_of(assignment.chunks))
        if assignment.condemned:
            self.condemned.update(rows_of(assignment.chunks))

    def spoiled(self, worker: str, chunk: Chunk) -> bool:
        return any(row in self.hogs or self.kill(worker, row) for row in rows_of([chunk]))

    @staticmethod
    def names(plans: list[ShardPlan]) -> list[str]:
        return [p.shard.name for p in plans]


def tally_of(assignment: Assignment) -> Tally:
    rows = assignment.rows
    return Tally(rows, failed=rows) if assignment.condemned else Tally(rows, succeeded=rows)
