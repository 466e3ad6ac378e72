"""Under hundreds of schedules of faults, every promise is kept; and each broken pipeline is found out.

A failing seed is named; python -m tests.soak SEED replays it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import fields
from unittest.mock import patch

import pytest

from tests.soak.__main__ import HASH_SEED
from tests.soak.mutations import MUTATIONS
from tests.soak.soak import Outcome, soak
from tests.soak.weather import Rates

SEEDS = 200
QUICK_SEEDS = 60
BATCH = 20
BATCHES = [range(first, first + BATCH) for first in range(0, SEEDS, BATCH)]
QUICK = [batch for batch in BATCHES if batch.stop <= QUICK_SEEDS]
OFTEN = 5


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """Other processes: the simulation replaces parts of Python, and wants a fixed order of sets."""
    context = multiprocessing.get_context("spawn")
    with (
        patch.dict(os.environ, {"PYTHONHASHSEED": HASH_SEED}),
        ProcessPoolExecutor(min(4, os.cpu_count() or 1), mp_context=context) as pool,
    ):
        yield pool
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def outcomes(elsewhere: ProcessPoolExecutor) -> dict[range, Future[list[Outcome]]]:
    return {batch: elsewhere.submit(play, batch) for batch in QUICK}


def play(seeds: range) -> list[Outcome]:
    return [soak(seed) for seed in seeds]


def first_found(mutation: str) -> Outcome | None:
    """The first seed that shows what is broken, if any does."""
    with MUTATIONS[mutation]():
        return next((outcome for outcome in map(soak, range(SEEDS)) if outcome.problem), None)


def named(batch: range) -> str:
    return f"seeds-{batch.start}-to-{batch.stop - 1}"


@pytest.mark.parametrize("batch", QUICK, ids=named)
def test_every_promise_is_kept_whatever_happens(outcomes: dict[range, Future[list[Outcome]]], batch: range):
    assert_kept(outcomes[batch].result())


@pytest.mark.slow
@pytest.mark.parametrize("batch", [batch for batch in BATCHES if batch not in QUICK], ids=named)
def test_every_promise_is_kept_for_long(elsewhere: ProcessPoolExecutor, batch: range):
    assert_kept(elsewhere.submit(play, batch).result())


def assert_kept(outcomes: list[Outcome]) -> None:
    broken = {outcome.seed: outcome.problem for outcome in outcomes if outcome.problem}
    assert not broken, f"python -m tests.soak {next(iter(broken))} replays the first"


def test_these_seeds_bring_every_fault(outcomes: dict[range, Future[list[Outcome]]]):
    assert rare(outcome for batch in outcomes.values() for outcome in batch.result()) == {}


@pytest.mark.slow
def test_all_seeds_bring_every_fault_many_times(elsewhere: ProcessPoolExecutor):
    outcomes = elsewhere.map(play, BATCHES)
    assert rare((outcome for batch in outcomes for outcome in batch), OFTEN) == {}


def rare(outcomes: Iterable[Outcome], often: int = 1) -> dict[str, int]:
    """The faults that came less often."""
    counts = sum((outcome.counts for outcome in outcomes), Counter())
    faults = [fault.name for fault in fields(Rates)] + ["zombie", "poisoned", "change"]
    return {fault: counts[fault] for fault in faults if counts[fault] < often}


@pytest.mark.parametrize("seed", [3, 14, 78])
def test_a_seed_replays_event_by_event(elsewhere: ProcessPoolExecutor, seed: int):
    first, second = elsewhere.submit(soak, seed), elsewhere.submit(soak, seed)
    assert len(first.result().log) > 100
    assert first.result() == second.result()


# They are found by the fewest seeds, so that they take longer than all others together.
_RARE = {"the last to publish wins", "overlapping chunks are put together"}


@pytest.mark.parametrize(
    "mutation",
    [pytest.param(name, marks=pytest.mark.slow) if name in _RARE else name for name in MUTATIONS],
)
def test_a_pipeline_is_found_out_in_which(elsewhere: ProcessPoolExecutor, mutation: str):
    assert elsewhere.submit(first_found, mutation).result()
