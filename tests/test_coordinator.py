"""Every row of every shard comes back exactly once, whoever dies; only rows that kill are condemned."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.coordinator import FEWEST_ROWS, HELD, SUSPECT_ROWS, Assignment, Coordinator, gaps
from pipeline.errors import WorkersExhausted
from pipeline.shard.shards import CHUNK_ROWS, Chunk, Shard, ShardPlan

Row = tuple[str, int]
SIZES = st.lists(st.integers(0, 700), min_size=1, max_size=6)


def plan(name: str, rows: int) -> ShardPlan:
    return ShardPlan(Shard(name, f"in/{name}", rows, ""), rows, "", (), ("prompt",))


def rows_of(assignment: Assignment) -> list[Row]:
    """Row 0 stands for a shard without rows: it must be visited once as well."""
    return [(c.shard, row) for c in assignment.chunks for row in range(c.start, max(1, c.stop))]


class Farm:
    """Workers that answer, die of poison rows, or are killed at random, until nothing is left."""

    def __init__(
        self,
        sizes: list[int],
        workers: int,
        poison: set[Row],
        kills: float,
        seed: int,
        hogs: frozenset[Row] = frozenset(),
    ) -> None:
        """hogs: rows that fill the memory, so that their worker or any other is killed."""
        self.random = random.Random(seed)
        self.coordinator = Coordinator(workers=workers)
        self.workers = [f"w{i}" for i in range(workers)]
        self.poison, self.kills, self.hogs = poison, kills, hogs
        self.answered: Counter[Row] = Counter()
        self.condemned: set[Row] = set()
        self.complete: list[str] = []
        self.deaths = self.streak = self.longest_streak = 0
        for number, rows in enumerate(sizes):
            if not self.coordinator.add(plan(f"s{number}", rows)):
                self.complete.append(f"s{number}")

    def run(self) -> Farm:
        for _ in range(100_000):
            if self.coordinator.idle:
                return self
            self.turn(self.random.choice(self.workers))
        raise AssertionError("the job doesn't end")

    def turn(self, worker: str) -> None:
        while self.coordinator.assign(worker):
            pass
        held = self.coordinator.held(worker)
        assert len(held) <= HELD
        assert len(held) == 1 or not any(a.alone for a in held)
        assert all(a.rows <= (SUSPECT_ROWS if a.alone and not a.exclusive else CHUNK_ROWS) for a in held)
        if held:
            self.work(worker, held)

    def work(self, worker: str, held: tuple[Assignment, ...]) -> None:
        poisoned = any(row in self.poison for a in held if not a.condemned for row in rows_of(a))
        if any(self.fills_memory(other) for other in self.workers if other != worker):
            if self.random.random() < 0.5:
                self.die(worker, held, blame=False, memory=True)
        elif self.fills_memory(worker):
            self.die(worker, held, blame=False, memory=True)
        elif poisoned:
            self.die(worker, held, blame=True)
        elif self.random.random() < self.kills:
            self.die(worker, held, blame=False)
        else:
            self.streak = 0
            self.answer(held[0])
            self.complete += self.names(self.coordinator.complete(worker, held[0]))

    def fills_memory(self, worker: str) -> bool:
        held = self.coordinator.held(worker)
        return any(row in self.hogs for a in held if not a.condemned for row in rows_of(a))

    def die(self, worker: str, held: tuple[Assignment, ...], blame: bool, memory: bool = False) -> None:
        self.deaths += 1
        self.streak += 1
        self.longest_streak = max(self.longest_streak, self.streak)
        chunks = [c for a in held for c in a.chunks if not self.poisoned(c)]
        committed = [c for c in chunks if self.random.random() < 0.3]
        for chunk in committed:
            self.answer(Assignment(0, (chunk,)))
        self.complete += self.names(self.coordinator.lost(worker, blame, committed, memory))

    def answer(self, assignment: Assignment) -> None:
        self.answered.update(rows_of(assignment))
        if assignment.condemned:
            self.condemned.update(rows_of(assignment))

    def poisoned(self, chunk: Chunk) -> bool:
        return any(row in self.poison | self.hogs for row in rows_of(Assignment(0, (chunk,))))

    @staticmethod
    def names(plans: list[ShardPlan]) -> list[str]:
        return [p.shard.name for p in plans]


@given(SIZES, st.integers(1, 4), st.floats(0, 0.5), st.data())
def test_every_row_comes_back_once_and_only_poison_is_condemned(sizes, workers, kills, data):
    every = [(f"s{i}", row) for i, size in enumerate(sizes) for row in range(max(1, size))]
    poison = set(data.draw(st.lists(st.sampled_from(every), max_size=4)))
    farm = Farm(sizes, workers, poison, kills, data.draw(st.integers(0, 2**32))).run()
    assert farm.answered == Counter(every)
    assert farm.condemned == poison
    assert sorted(farm.complete) == sorted(f"s{i}" for i in range(len(sizes)))


def test_innocent_rows_survive_any_number_of_blameless_deaths():
    farm = Farm([5000], 1, set(), kills=0.95, seed=1).run()
    assert farm.deaths > 5
    assert not farm.condemned


@given(SIZES, st.integers(1, 4), st.data())
def test_a_row_that_fills_the_memory_is_condemned_and_none_that_was_killed_beside_it(sizes, workers, data):
    every = [(f"s{i}", row) for i, size in enumerate(sizes) for row in range(max(1, size))]
    hogs = frozenset(data.draw(st.lists(st.sampled_from(every), max_size=3)))
    farm = Farm(sizes, workers, set(), 0.1, data.draw(st.integers(0, 2**32)), hogs).run()
    assert farm.answered == Counter(every)
    assert farm.condemned == hogs


@given(st.integers(0, 2000), st.data())
def test_gaps_and_the_done_chunks_that_count_tile_the_shard(rows, data):
    bound = st.integers(0, rows)
    pairs = data.draw(st.lists(st.tuples(bound, bound).filter(lambda pair: pair[0] < pair[1]), max_size=8))
    done = [Chunk("s", *pair) for pair in pairs]
    left = list(gaps(rows, done))
    border, starts = 0, dict(left) | {c.start: c.stop for c in sorted(done) if c.start not in dict(left)}
    while border < rows:
        border = starts[border]
    assert border == rows
    assert all(start < stop for start, stop in left) or left == [(0, 0)]


def test_a_resumed_shard_is_worked_on_only_where_nothing_is_done():
    coordinator = Coordinator()
    assert coordinator.add(plan("s", 600), done=[Chunk("s", 0, 256), Chunk("s", 300, 500)])
    given = [coordinator.assign("w"), coordinator.assign("w")]
    ranges = [(c.start, c.stop) for a in given if a for c in a.chunks]
    assert ranges == [(256, 300), (500, 600)]


def test_a_shard_without_open_rows_is_not_taken_on():
    coordinator = Coordinator()
    assert not coordinator.add(plan("empty", 0), done=[Chunk("empty", 0, 0)])
    assert not coordinator.add(plan("done", 10), done=[Chunk("done", 0, 10)])
    assert coordinator.idle


def test_a_shard_without_rows_is_visited_once():
    coordinator = Coordinator()
    assert coordinator.add(plan("empty", 0))
    assignment = coordinator.assign("w")
    assert assignment and assignment.chunks == (Chunk("empty", 0, 0),)
    assert [p.shard.name for p in coordinator.complete("w", assignment)] == ["empty"]
    assert coordinator.idle


def test_tiny_shards_are_packed_into_one_assignment():
    coordinator = Coordinator()
    for number in range(300):
        coordinator.add(plan(f"s{number:03}", 1))
    first, second = coordinator.assign("w"), coordinator.assign("w")
    assert first and second
    assert (first.rows, second.rows) == (CHUNK_ROWS, 300 - CHUNK_ROWS)


def test_large_shards_go_first_and_a_giant_one_is_shared_by_all():
    coordinator = Coordinator(workers=3)
    coordinator.add(plan("small", 10))
    coordinator.add(plan("giant", 100_000))
    for worker in ("a", "b", "c"):
        assignment = coordinator.assign(worker)
        assert assignment and assignment.chunks[0].shard == "giant"


def test_workers_spread_over_shards_of_one_size():
    coordinator = Coordinator(workers=2)
    coordinator.add(plan("x", 5000))
    coordinator.add(plan("y", 5000))
    shards = {a.chunks[0].shard for w in ("a", "b", "a", "b") if (a := coordinator.assign(w))}
    assert shards == {"x", "y"}


def test_few_rows_are_divided_among_all_workers():
    coordinator = Coordinator(workers=4)
    coordinator.add(plan("s", 4 * FEWEST_ROWS))
    sizes = [a.rows for w in "abcd" if (a := coordinator.assign(w))]
    assert sizes == [FEWEST_ROWS] * 4


def test_chunks_of_slow_workers_are_shorter():
    coordinator = Coordinator()
    coordinator.add(plan("s", 1000))
    coordinator.chunk_rows = 100
    assignment = coordinator.assign("w")
    assert assignment and assignment.rows == 100


def test_what_a_worker_thought_dead_reports_later_changes_nothing():
    coordinator = Coordinator()
    coordinator.add(plan("s", 5))
    first = coordinator.assign("zombie")
    assert first
    coordinator.lost("zombie", blame=False)
    again = coordinator.assign("other")
    assert again and again.chunks == first.chunks and again.attempt == 2
    assert coordinator.complete("zombie", first) == []
    assert [p.shard.name for p in coordinator.complete("other", again)] == ["s"]


def test_a_poison_row_is_tried_alone_as_often_as_allowed_then_condemned():
    coordinator = Coordinator(max_attempts=3)
    coordinator.add(plan("s", 1))
    seen = []
    for number in range(5):
        assignment = coordinator.assign(f"w{number}")
        assert assignment
        seen.append((assignment.attempt, assignment.alone, assignment.condemned))
        if number < 4:
            coordinator.lost(f"w{number}", blame=True)
    alone = [(2, True, False), (3, True, False), (4, True, False)]
    assert seen == [(1, False, False), *alone, (5, True, True)]


@pytest.mark.parametrize("workers", [1, 3])
def test_each_bad_row_reaches_its_verdict_before_the_next_is_tried_again(workers: int):
    """However many lie side by side, few deaths come in a row: a pool gives up after many."""
    poison = {("s0", row) for row in range(300, 300 + CHUNK_ROWS)}
    farm = Farm([1000], workers, poison, 0.0, seed=1).run()
    assert farm.condemned == poison
    assert farm.longest_streak <= HELD * CHUNK_ROWS / SUSPECT_ROWS + 4 * workers


def test_a_row_that_kills_even_unread_stops_the_job():
    coordinator = Coordinator()
    coordinator.add(plan("s", 1))
    with pytest.raises(WorkersExhausted, match="s: row 0"):
        for number in range(100):
            coordinator.assign(f"w{number}")
            coordinator.lost(f"w{number}", blame=True)
