"""Every row of every shard comes back exactly once, whoever dies; only rows that kill are condemned."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WorkersExhausted
from pipeline.input.shards import CHUNK_ROWS, Chunk
from pipeline.job.backlog import FEWEST_ROWS, gaps
from pipeline.job.coordinator import HELD, SUSPECT_ROWS, Coordinator
from pipeline.job.trust import TRIALS
from pipeline.tally import Tally
from tests.farm import Farm, Row, every_row, plan

SIZES = st.lists(st.integers(0, 700), min_size=1, max_size=6)


@given(SIZES, st.integers(1, 4), st.floats(0, 0.5), st.data())
def test_every_row_comes_back_once_and_only_poison_is_condemned(sizes, workers, kills, data):
    every = every_row(sizes)
    poison = set(data.draw(st.lists(st.sampled_from(every), max_size=TRIALS - 1)))
    farm = Farm(sizes, workers, poison, kills, data.draw(st.integers(0, 2**32))).run()
    assert_ended_well(farm, sizes, every, poison)


def assert_ended_well(farm: Farm, sizes: list[int], every: list[Row], guilty: set[Row]) -> None:
    """Where no row can be answered, nothing tells their fault from the machine's: it may be stopped."""
    assert farm.condemned <= guilty
    answerable = any(
        size and (f"s{i}", row) not in guilty for i, size in enumerate(sizes) for row in range(size)
    )
    if answerable or not farm.stopped:
        assert farm.answered == Counter(every)
        assert farm.condemned == guilty
        assert sorted(farm.complete) == sorted(f"s{i}" for i in range(len(sizes)))


def test_innocent_rows_survive_any_number_of_blameless_deaths():
    farm = Farm([5000], 1, set(), kills=0.95, seed=1).run()
    assert farm.deaths > 5
    assert not farm.condemned


@given(SIZES, st.integers(1, 4), st.data())
def test_a_row_that_fills_the_memory_is_condemned_and_none_that_was_killed_beside_it(sizes, workers, data):
    every = every_row(sizes)
    spare = [row for row in every if row[1] or sizes[int(row[0][1:])] > 1][1:]
    hogs = frozenset(data.draw(st.lists(st.sampled_from(spare), max_size=3)) if spare else ())
    farm = Farm(sizes, workers, set(), 0.1, data.draw(st.integers(0, 2**32)), hogs).run()
    assert_ended_well(farm, sizes, every, set(hogs))


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
    assert [p.shard.name for p in coordinator.complete("w", assignment, Tally())] == ["empty"]
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
    coordinator.backlog.chunk_rows = 100
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
    assert coordinator.complete("zombie", first, Tally(5, 5)) == []
    assert [p.shard.name for p in coordinator.complete("other", again, Tally(5, 5))] == ["s"]


def test_a_poison_row_is_tried_alone_as_often_as_allowed_then_condemned():
    coordinator = Coordinator(max_attempts=3)
    coordinator.add(plan("s", 1))
    coordinator.note_answered((Chunk("earlier", 0, 1),), Tally(1, 1))
    seen = []
    for number in range(5):
        worker = f"w{number}"
        while (assignment := coordinator.assign(worker)) and assignment.control:
            coordinator.complete(worker, assignment, Tally(1, 1))
        assert assignment
        seen.append((assignment.attempt, assignment.alone, assignment.condemned))
        if number < 4:
            coordinator.lost(worker, blame=True)
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
    coordinator.note_answered((Chunk("earlier", 0, 1),), Tally(1, 1))
    with pytest.raises(WorkersExhausted, match="s: row 0"):
        for number in range(100):
            worker = f"w{number}"
            while (assignment := coordinator.assign(worker)) and assignment.control:
                coordinator.complete(worker, assignment, Tally(1, 1))
            coordinator.lost(worker, blame=True)
