"""Fault 1: actor processes are killed at random."""

from __future__ import annotations

import random
import time

import pytest

from tests.faults.case import Case
from tests.faults.machines import Machines, kill, until
from tests.faults.truth import assert_whole


def test_actors_killed_at_random_cost_at_most_the_chunks_in_work(case, machines):
    redone, chunk = killed_at_random(case, machines, kills=3)
    assert redone <= 2 * chunk * 3


@pytest.mark.slow
def test_20_actors_killed_at_random_cost_at_most_the_chunks_in_work(case, machines):
    redone, chunk = killed_at_random(case, machines, kills=20)
    print(f"\n20 kills: {redone} rows redone, {redone / 20:.1f} a kill; the longest chunk had {chunk}")
    assert redone <= 2 * chunk * 20


def killed_at_random(case: Case, machines: Machines, kills: int) -> tuple[int, int]:
    """Rows that were answered again, and the length of the longest chunk."""
    chance = random.Random(kills)
    for shard in range(4):
        case.shard(f"s{shard}", 300 * kills)
    with case.watch() as watcher:
        driver = case.start(seconds=0.01)
        for _ in range(kills):
            kill(until(lambda: someone_at_work(case, machines, chance), 30, "an actor at work"))
            time.sleep(chance.uniform(0.2, 1.5))
        assert driver.running, "the job ended before the last kill"
        case.log.hurry()
        assert driver.wait(300) == 0, driver.tail
    assert_whole(case, watcher)
    return case.log.redone(), case.log.longest_chunk()


def someone_at_work(case: Case, machines: Machines, chance: random.Random) -> int | None:
    """An actor's process that has answered rows and lives."""
    alive = set(machines.processes())
    working = sorted({record["pid"] for record in case.log.events("answered")} & alive)
    return chance.choice(working) if working else None
