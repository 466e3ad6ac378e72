"""Interactive rows come first, and batch rows come all the same: neither starves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.engine import STREAM_TOKENS, Engine
from pipeline.engine.fakes.fake import IM_START, FakeModel, FakeVocabulary
from pipeline.engine.model import Batch
from pipeline.engine.priority import Priority
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Outcome, Sequence, State
from pipeline.engine.text import TextStream
from pipeline.engine.turns import PATIENCE

VOCABULARY = FakeVocabulary()
CONTEXT = 120
NEVER_ENDS = tuple((token, -100.0) for token in VOCABULARY.end_tokens)
PARAMS = SamplingParams(temperature=1.0, seed=1, logit_bias=NEVER_ENDS)
SIZES = st.lists(
    st.tuples(st.integers(1, 70), st.integers(1, 45)), min_size=1, max_size=4
)  # Tokens of a prompt, and of its answer.


def row(size: tuple[int, int], priority: Priority, done: Callable[[Outcome], None]) -> Sequence:
    prompt, answer = [ord("a")] * size[0], size[1]
    sampler = partial(new_sampler, PARAMS, prompt, VOCABULARY)
    return Sequence(prompt, answer, sampler, TextStream(VOCABULARY.piece), done, priority=priority)


class Flood:
    """An engine for which rows of one priority never end."""

    def __init__(self, priority: Priority, sizes: list[tuple[int, int]], slots: int, *, split: bool) -> None:
        # All cells together hold one of the longest rows, so that rows may need what others have.
        model = FakeModel(split=split, max_sequences=max(slots, 8), cells=CONTEXT, context=CONTEXT)
        self.engine = Engine(model, slots=slots, reproducible=split)
        self._priority, self._sizes = priority, cycle(sizes)
        self._waiting: list[Sequence] = []

    def step(self) -> None:
        self._waiting = [one for one in self._waiting if one.state is State.WAITING]
        while len(self._waiting) < 3:
            self._waiting.append(row(next(self._sizes), self._priority, lambda outcome: None))
            self.engine.submit([self.engine.prepare(self._waiting[-1])])
        self.engine.step()


@settings(deadline=None, max_examples=30)
@given(
    priority=st.sampled_from(Priority),
    sizes=SIZES,
    others=SIZES,
    slots=st.integers(1, 5),
    split=st.booleans(),
)
def test_neither_priority_starves_the_other(priority, sizes, others, slots, split):
    flood = Flood(priority, sizes, slots, split=split)
    for _ in range(5):
        flood.step()
    found: list[Outcome] = []
    other = next(one for one in Priority if one is not priority)
    for size in others:
        flood.engine.submit([flood.engine.prepare(row(size, other, found.append))])
    # What a row needs, for each of those that may come before it.
    for _ in range(len(others) * 12 * 60):
        flood.step()
        if len(found) == len(others):
            return
    raise AssertionError(f"{len(others) - len(found)} rows starve")


@pytest.mark.parametrize("split", [False, True])
def test_with_one_slot_a_batch_row_has_its_turn_and_ends_it(split):
    flood = Flood(Priority.INTERACTIVE, [(5, 3)], 1, split=split)
    flood.step()
    found: list[Outcome] = []
    batch = row((5, 40), Priority.BATCH, found.append)
    flood.engine.submit([flood.engine.prepare(batch)])
    before = flood.engine.counters.rows
    while not found:
        flood.step()
    assert PATIENCE <= flood.engine.counters.rows - before <= PATIENCE + 3
    assert flood.engine.counters.preemptions == 0


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("last_turn", [10, 200])
def test_a_long_prompt_holds_up_nobody_who_reads_along(split, last_turn):
    """llama.cpp#29175. The rows read along from slots 0 to 2."""
    model = FakeModel(split=split, max_sequences=8, cells=9000, context=3000, batch_size=512)
    engine = Engine(model, slots=8, reproducible=split)
    readers = [row((5 + at, 400), Priority.INTERACTIVE, lambda outcome: None) for at in range(3)]
    engine.submit([engine.prepare(one) for one in readers])
    while not all(one.tokens for one in readers):
        engine.step()
    calls: list[Batch] = []
    model.fails = calls.append
    late = [row((1500 + 100 * at, 20), Priority.BATCH, lambda outcome: None) for at in range(3)]
    for at, one in enumerate(late):
        one.prompt[0], one.prompt[-last_turn] = ord("b") + at, IM_START
    engine.submit([engine.prepare(one) for one in late])
    while not all(one.tokens for one in late):
        engine.step()
    assert max(map(len, calls)) <= STREAM_TOKENS
    theirs = [{0, 1, 2} <= set(call.sequence_ids) for call in calls]
    assert all(one or other for one, other in pairwise(theirs)), "two calls in a row without the readers"
