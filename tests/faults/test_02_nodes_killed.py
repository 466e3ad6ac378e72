"""Fault 2: nodes are killed and others join."""

from __future__ import annotations

import random
import time
from functools import partial

import pytest

from tests.faults.case import Case
from tests.faults.machines import Machines, until
from tests.faults.truth import assert_whole

ROUNDS = 10


@pytest.mark.slow
def test_a_job_uses_what_is_left_of_a_cluster_whose_nodes_die_and_what_joins_it(case, machines):
    chance = random.Random(2)
    case.shard("large", 60_000)
    case.shard("small", 300)
    used = []
    with case.watch() as watcher:
        driver = case.start(seconds=0.02)
        until(partial(at_work, case, machines), 60, "actors")
        for number in range(ROUNDS):
            machines.lose(chance.choice(sorted(machines.nodes)))
            lost = time.time()
            until(partial(at_work, case, machines, lost), 30, "the other node goes on")
            node = machines.add()
            began = time.monotonic()
            until(lambda n=node: at_work(case, machines, nodes=[n]), 60, f"node {number} is used")
            used.append(time.monotonic() - began)
        assert driver.running
        case.log.hurry()
        assert driver.wait(300) == 0, driver.tail
    lost_rows = case.log.redone()
    print(
        f"\n{ROUNDS} nodes killed: {lost_rows} rows redone, {lost_rows / ROUNDS:.0f} a node; the longest "
        f"chunk had {case.log.longest_chunk()}; a new node had its first answer after up to {max(used):.1f} s"
    )
    assert_whole(case, watcher)
    assert lost_rows <= 2 * case.log.longest_chunk() * ROUNDS


def at_work(case: Case, machines: Machines, since: float = 0.0, nodes: list[str] | None = None) -> bool:
    """Whether rows have been answered on some of the nodes that live."""
    living = machines.nodes.keys() if nodes is None else nodes
    pids = {record["pid"] for record in case.log.events("born") if record["node"] in living}
    return any(r["pid"] in pids and r["at"] > since for r in case.log.events("answered"))
