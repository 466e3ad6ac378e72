"""A machine's fault is never written down as a row's, whatever rows are in the input (issue 9, item 3)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.input.shards import Chunk
from pipeline.job.coordinator import Coordinator
from pipeline.job.trust import TRIALS
from pipeline.tally import Tally
from tests.farm import Farm, every_row, plan

SIZES = st.lists(st.integers(0, 400), min_size=1, max_size=4)
MACHINES = st.dictionaries(st.sampled_from(["m0", "m1", "m2"]), st.integers(1, 3), min_size=1)
SEEDS = st.integers(0, 2**32)
FEW = st.integers(0, TRIALS - 1)


def drawn(data: st.DataObject, sizes: list[int], number: int) -> set[tuple[str, int]]:
    return set(data.draw(st.lists(st.sampled_from(every_row(sizes)), min_size=number, max_size=number)))


@given(SIZES, MACHINES, FEW, st.data())
def test_a_llama_cpp_that_always_dies_condemns_nobody_and_stops_the_job_soon(sizes, machines, bad, data):
    poison = drawn(data, sizes, bad)
    farm = Farm(sizes, machines, poison, 0.0, data.draw(SEEDS), deadly=lambda machine, row: True).run()
    assert farm.stopped
    assert not farm.condemned and not farm.answered
    # A worker that was at work meanwhile may die as well.
    assert farm.deaths <= sum(TRIALS + 2 * workers for workers in machines.values())


@given(SIZES, MACHINES, FEW, st.floats(0, 0.3), st.data())
def test_a_llama_cpp_that_dies_on_some_machines_condemns_only_rows_that_kill_everywhere(
    sizes, machines, bad, kills, data
):
    broken = set(data.draw(st.lists(st.sampled_from(sorted(machines)), max_size=len(machines) - 1)))
    poison = drawn(data, sizes, bad)
    seed = data.draw(SEEDS)
    farm = Farm(sizes, machines, poison, kills, seed, deadly=lambda machine, row: machine in broken).run()
    assert farm.condemned <= poison
    assert broken >= farm.coordinator.barred or farm.stopped
    if any(set(every_row([size])) for size in sizes if size > TRIALS):
        assert farm.answered == Counter(every_row(sizes))
        assert farm.condemned == poison


@given(st.integers(2, 400), st.integers(1, 2), st.floats(0.05, 1), st.data())
def test_a_kernel_that_dies_of_some_rows_on_some_machines_condemns_none_of_them(size, workers, share, data):
    """Its machine answers other rows, and so is sound in all other respects."""
    touched = set(data.draw(st.lists(st.integers(0, size - 1), max_size=max(1, int(share * size)))))

    def deadly(machine: str, row: tuple[str, int]) -> bool:
        return machine == "new" and row[1] in touched

    farm = Farm([size], {"new": workers, "old": workers}, set(), 0.0, data.draw(SEEDS), deadly=deadly).run()
    assert not farm.condemned
    assert farm.answered == Counter(every_row([size]))


@given(st.integers(2, 200), st.integers(2, 6), st.data())
def test_a_row_that_dies_of_a_kernel_is_answered_with_another_however_many_machines_have_the_first(
    size, machines, data
):
    slots = {f"new-{number}": 1 for number in range(machines)} | {"old": 1}

    def deadly(machine: str, row: tuple[str, int]) -> bool:
        return machine != "old" and row[1] % 3 == 0

    farm = Farm([size], slots, set(), 0.0, data.draw(SEEDS), deadly=deadly)
    farm.coordinator.kernels = {machine: machine.split("-")[0] for machine in slots}
    farm.run()
    assert not farm.condemned
    assert farm.answered == Counter(every_row([size]))


@given(SIZES, FEW, st.integers(0, 300), st.data())
def test_a_machine_that_breaks_after_a_while_condemns_only_what_killed_before(sizes, bad, answers, data):
    poison = drawn(data, sizes, bad)
    farm = Farm(sizes, {"m0": 2}, poison, 0.0, data.draw(SEEDS))
    farm.deadly = lambda machine, row: farm.answered.total() > answers
    farm.run()
    assert farm.condemned <= poison
    assert farm.stopped or farm.answered == Counter(every_row(sizes))


def test_a_job_of_rows_that_all_kill_ends_soon_and_condemns_nobody():
    rows = every_row([1000])
    farm = Farm([1000], 2, set(rows), 0.0, seed=1).run()
    assert farm.stopped and not farm.condemned
    assert farm.deaths <= TRIALS + 4


@pytest.mark.parametrize("rows", [1, 300])
def test_rows_that_kill_are_condemned_where_an_earlier_run_has_answered_others(rows):
    coordinator = Coordinator()
    coordinator.add(plan("s", rows))
    coordinator.note_answered((Chunk("earlier", 0, 7),), Tally(7, 7))
    deaths = controls = condemned = 0
    while not coordinator.idle:
        worker = f"w{deaths}"
        assignment = coordinator.assign(worker)
        assert assignment
        if assignment.control:
            assert assignment.chunks == (Chunk("earlier", 0, 1),)
            controls += 1
        if assignment.control or assignment.condemned:
            condemned += assignment.condemned
            ok = int(assignment.control)
            coordinator.complete(worker, assignment, Tally(1, ok, 1 - ok))
        else:
            deaths += 1
            coordinator.lost(worker, blame=True)
    assert condemned == rows
    # After each death but the last, a new worker proves itself.
    assert controls == deaths
