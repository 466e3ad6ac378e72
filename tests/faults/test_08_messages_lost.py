"""Fault 8: calls to actors, or their answers, get lost."""

from __future__ import annotations

import time
from dataclasses import asdict

import pytest

from tests.faults.lossy import Losses
from tests.faults.truth import assert_whole

PATIENCE = 60.0
"""Seconds that nothing may hang beyond."""
TIME_OUTS = {"SILENCE": 45.0, "MISLAID": 20.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "losses", [Losses(calls=0.2), Losses(answers=0.2), Losses(pulses=0.2)], ids=["calls", "answers", "pulses"]
)
@pytest.mark.parametrize("faster", [5, 1])
def test_a_job_whose_messages_get_lost_ends_and_never_hangs_for_long(case, losses, faster):
    """faster: time-outs and patience are divided by it."""
    case.shard("s", 12_000)
    case.shard("t", 700)
    constants = {name: seconds / faster for name, seconds in TIME_OUTS.items()}
    with case.watch() as watcher:
        began = time.monotonic()
        # The job must outlast the time-outs.
        pace = 0.01 if faster > 1 else 0.03
        case.run(seconds_left=400, seconds=pace, constants=constants, losses=losses)
        silence = case.log.longest_silence(until=time.time())
    lost = case.drivers[0].printed.count("is gone")
    print(
        f"\n{asdict(losses)}, time-outs / {faster}: {time.monotonic() - began:.0f} s, {lost} actors "
        f"replaced, longest silence {silence:.1f} s, {case.log.redone()} rows redone"
    )
    assert lost, "nothing was lost"
    assert silence < PATIENCE / faster
    assert_whole(case, watcher)


@pytest.mark.slow
def test_a_job_goes_on_when_all_its_actors_fail_to_say_that_they_have_started(case):
    case.shard("s", 2000)
    losses = Losses(starts=2, marks=str(case.log.path))
    constants = {name: seconds / 5 for name, seconds in TIME_OUTS.items()}
    with case.watch() as watcher:
        case.run(losses=losses, constants=constants, seconds_left=PATIENCE)
    assert_whole(case, watcher)


@pytest.mark.slow
def test_an_actor_that_stops_is_replaced_although_its_first_life_sign_was_lost(case):
    case.shard("s", 1000, {500: "ONCE FREEZE"})
    constants = {name: seconds / 5 for name, seconds in TIME_OUTS.items()}
    with case.watch() as watcher:
        case.run(losses=Losses(first_pulse=True), constants=constants, seconds_left=PATIENCE)
    assert_whole(case, watcher)
