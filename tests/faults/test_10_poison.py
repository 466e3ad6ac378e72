"""Fault 10: rows that end, break or stop the process that reads them, 1% of the input."""

from __future__ import annotations

import pytest

from tests.faults.case import Case
from tests.faults.truth import assert_whole

DEADLY = ("KILL", "SEGFAULT")
POISONS = (*DEADLY, "ABORT", "EXIT", "LEAVE", "OVERFLOW", "RECURSE", "BREAK", "HANG", "FREEZE")
IMPATIENT = {"SILENCE": 4.0, "_STALL_SLACK": 2.0}


@pytest.mark.slow
def test_only_the_rows_that_kill_their_workers_bear_an_error(case):
    with case.watch() as watcher:
        bad = poisoned(case, DEADLY)
        case.run(seconds=0.001)
    assert_whole(case, watcher, crashed=bad)


@pytest.mark.slow
@pytest.mark.parametrize("poison", POISONS)
def test_of_each_kind_of_poison_only_the_bad_rows_bear_an_error(case, poison):
    with case.watch() as watcher:
        bad = poisoned(case, [poison] * 2)
        case.run({"retry": {"row_deadline": 1}}, 240, seconds=0.001, constants=IMPATIENT)
    deaths = case.drivers[0].printed.count("is gone")
    print(f"\n{poison}: {deaths} deaths for {len(bad)} rows of {sum(case.rows.values())}")
    assert_whole(case, watcher, crashed=bad)


@pytest.mark.slow
def test_a_suite_of_all_poisons_spoils_no_other_row(case):
    with case.watch() as watcher:
        bad = poisoned(case, POISONS)
        case.run({"retry": {"row_deadline": 1}}, 300, seconds=0.001, constants=IMPATIENT)
    deaths = case.drivers[0].printed.count("is gone")
    print(f"\n{len(bad)} bad rows of {sum(case.rows.values())}: {deaths} deaths, {case.log.redone()} redone")
    assert_whole(case, watcher, crashed=bad)


def poisoned(case: Case, poisons: tuple[str, ...] | list[str]) -> frozenset[str]:
    """A shard of which each hundredth row is bad; their names."""
    orders = {100 * i + 37: poison for i, poison in enumerate(poisons)}
    case.shard("s", 100 * len(poisons), orders)
    return frozenset(f"s-{row}" for row in orders)
