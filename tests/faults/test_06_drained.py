"""Fault 6: a node is told that it goes in 30 seconds, and goes."""

from __future__ import annotations

import time

import pytest

from tests.faults.case import Case
from tests.faults.machines import Machines, until
from tests.faults.truth import assert_whole

NOTICE = 30.0
GRACE = 2.0


@pytest.mark.slow
def test_a_node_that_is_about_to_go_gets_no_more_work_and_costs_at_most_a_chunk(case, machines):
    case.shard("s", 60_000)
    machines.add()
    with case.watch() as watcher:
        driver = case.start({"cluster": {"actors": 3, "cpus_per_actor": 1}}, seconds=0.02)
        until(lambda: len(working(case, machines)) == 3, 60, "three actors at work")
        node = sorted(machines.nodes)[0]
        pids = pids_of(case, node)
        told = time.time()
        machines.drain(node, NOTICE)
        time.sleep(NOTICE)
        elsewhere = [
            r for r in case.log.events("answered") if r["pid"] not in pids and r["at"] > told + GRACE
        ]
        machines.lose(node)
        case.log.hurry()
        assert driver.wait(300) == 0, driver.tail
    late = [r["at"] - told for r in case.log.events("begun") if r["pid"] in pids and r["at"] > told + GRACE]
    redone, chunk = case.log.redone(pids), case.log.longest_chunk()
    print(f"\n{len(late)} chunks begun there later than {GRACE:g} s after the notice; {redone} rows redone")
    print(f"the longest chunk had {chunk}; {len(elsewhere)} rows were answered elsewhere meanwhile")
    assert_whole(case, watcher)
    assert elsewhere
    assert pids_of(case, node) == pids, "an actor was started on a node that goes"
    assert redone <= chunk
    assert not late


def working(case: Case, machines: Machines) -> set[str]:
    """The nodes where rows have been answered."""
    answered = {record["pid"] for record in case.log.events("answered")}
    born = case.log.events("born")
    return {r["node"] for r in born if r["pid"] in answered and r["node"] in machines.nodes}


def pids_of(case: Case, node: str) -> set[int]:
    return {record["pid"] for record in case.log.events("born") if record["node"] == node}
