"""Fault 14: llama.cpp dies of any row, on one node or on all (issue 9, item 3)."""

from __future__ import annotations

import pytest

from pipeline.job.trust import TRIALS
from tests.faults.case import Case
from tests.faults.driver import GAVE_UP
from tests.faults.truth import assert_whole


@pytest.mark.slow
def test_a_node_on_which_every_row_kills_gets_no_more_work_and_no_row_is_blamed(case, machines):
    unfit = min(machines.nodes)
    case.shard("s", 600, {300: "KILL"})
    with case.watch() as watcher:
        case.run(seconds_left=240, seconds=0.05, unfit=[unfit])
    printed = case.drivers[0].printed
    assert f"(Ray node {unfit[:8]}) is not used any more" in printed
    assert "SIGSEGV" in printed
    assert_whole(case, watcher, crashed=frozenset({"s-300"}))


@pytest.mark.slow
def test_a_job_whose_every_node_is_unfit_stops_soon_and_says_why(case: Case):
    case.shard("s", 600)
    driver = case.start(unfit=["all"])
    assert driver.wait(240) == GAVE_UP, driver.tail
    assert "no machine is left that can answer rows" in driver.printed
    assert "SIGSEGV" in driver.printed and "nightherd doctor" in driver.printed
    assert driver.printed.count("is gone and will be replaced") <= 2 * (TRIALS + 2)
    assert not list(case.output.glob("responses/*"))
