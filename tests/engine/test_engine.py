"""The engine on the fake model, whose next token depends on every cell of the sequence:
any mix of rows, slots, cells and failures gives each row the text it gets alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel, FakeVocabulary, next_logits
from pipeline.engine.model import Batch, NoRoom
from pipeline.engine.priority import Deadlines, Priority
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Generation, Outcome, Sequence
from pipeline.engine.text import TextStream
from pipeline.errors import RowError, WorkerError

VOCABULARY = FakeVocabulary()


@dataclass(frozen=True)
class Ask:
    """A request: shared beginning, own text, and how to go on."""

    beginning: bytes
    text: bytes
    max_tokens: int
    temperature: float
    stops: tuple[str, ...] = ()

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(temperature=self.temperature, seed=len(self.text))


asks = st.builds(
    Ask,
    beginning=st.sampled_from([b"", b"s" * 40, b"t" * 50]),
    text=st.binary(min_size=1, max_size=60),
    max_tokens=st.integers(1, 20),
    temperature=st.sampled_from([0.0, 1.0]),
    stops=st.sampled_from([(), ("e",), ("ab", "q")]),
)


def alone(ask: Ask, context: int = 256) -> tuple[str, str, int]:
    """What a plain loop over one sequence gives: text, finish reason, tokens."""
    tokens = list(ask.beginning + ask.text)
    sampler, stream = new_sampler(ask.params, tokens, VOCABULARY), TextStream(VOCABULARY.piece, ask.stops)
    for count in range(1, min(ask.max_tokens, context - len(tokens)) + 1):
        token = sampler.sample(next_logits(tokens))
        sampler.accept(token)
        if VOCABULARY.is_eog(token) or stream.push(token):
            return stream.finish(), "stop", count
        tokens.append(token)
    return stream.finish(), "length", count


def submit(
    engine: Engine,
    ask: Ask,
    outcomes: dict[int, Outcome],
    at: int,
    seconds: float = 1e9,
    waiting: float = 1e9,
    priority: Priority = Priority.BATCH,
) -> Sequence:
    def finish(outcome: Outcome) -> None:
        assert at not in outcomes, "a row left twice"
        outcomes[at] = outcome

    stream = TextStream(VOCABULARY.piece, ask.stops)
    prompt = list(ask.beginning + ask.text)
    sampler = partial(new_sampler, ask.params, prompt, VOCABULARY)
    row = Sequence(
        prompt,
        ask.max_tokens,
        sampler,
        stream,
        finish,
        deadlines=Deadlines(seconds, waiting),
        priority=priority,
    )
    engine.submit([engine.prepare(row)])
    return row


def run(model: FakeModel, slots: int, rows: list[Ask]) -> dict[int, Outcome]:
    engine, outcomes = (
        Engine(model, slots=slots, step_tokens=64 if model.split else 32, reproducible=model.split),
        {},
    )
    for at, ask in enumerate(rows):
        submit(engine, ask, outcomes, at)
    for _ in range(20_000):
        if not engine.busy:
            return outcomes
        engine.step()
        if not model.split and not engine._scheduler.released:
            assert model.used <= engine._scheduler._cells.used <= model.cells
    raise AssertionError("the engine does not come to an end")


def summary(outcome: Outcome) -> tuple[str, str, int]:
    assert isinstance(outcome, Generation)
    return outcome.text, outcome.finish_reason, outcome.completion_tokens


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(asks, max_size=12),
    slots=st.integers(1, 8),
    cells=st.integers(256, 900),
    batch=st.integers(9, 64),
    split=st.booleans(),
    refused=st.sets(st.integers(1, 200)),
)
def test_every_row_gets_the_text_that_it_gets_alone(rows, slots, cells, batch, split, refused):
    model = FakeModel(cells=cells, split=split, max_sequences=slots + 5, batch_size=64 if split else batch)
    running_alone = {1} if split else set()

    def fails(_: Batch) -> None:
        if model.calls in refused - running_alone and len(engine_rows) > 1:
            raise NoRoom("asked to refuse")

    engine_rows = rows
    if not split and slots > 1:
        model.fails = lambda b: fails(b) if len(set(b.sequence_ids)) > 1 or len(b) > 1 else None
    outcomes = run(model, slots, rows)
    assert sorted(outcomes) == list(range(len(rows)))
    assert [summary(outcomes[at]) for at in range(len(rows))] == [alone(ask) for ask in rows]


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(asks, min_size=2, max_size=10), slots=st.integers(2, 6), split=st.booleans())
def test_preempted_rows_come_back_with_the_same_text(rows, slots, split):
    model = FakeModel(cells=900, split=split, max_sequences=slots + 5)
    engine, outcomes = Engine(model, slots=slots, step_tokens=64 if split else 32, reproducible=split), {}
    for at, ask in enumerate(rows):
        submit(engine, ask, outcomes, at)
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
        if steps % 5 == 0 and steps < 100:
            engine._preempt()
    assert [summary(outcomes[at]) for at in range(len(rows))] == [alone(ask) for ask in rows]


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(asks, min_size=1, max_size=12), seed=st.randoms(use_true_random=False))
def test_usage_but_for_the_cached_tokens_is_the_same_for_every_schedule(rows, seed):
    def usage(slots: int, order: list[int]) -> dict[int, tuple[int, int]]:
        model = FakeModel(split=True, max_sequences=slots + 5)
        outcomes = run(model, slots, [rows[at] for at in order])
        return {
            order[at]: (o.prompt_tokens, o.completion_tokens)
            for at, o in outcomes.items()
            if isinstance(o, Generation)
        }

    order = list(range(len(rows)))
    first = usage(1, order)
    seed.shuffle(order)
    assert usage(5, order) == first


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(asks, min_size=1, max_size=12),
    slots=st.integers(1, 5),
    split=st.booleans(),
    unwanted=st.dictionaries(st.integers(0, 11), st.integers(0, 25)),
)
def test_cancelled_rows_leave_within_a_step_and_the_others_keep_their_text(rows, slots, split, unwanted):
    model = FakeModel(cells=900, split=split, max_sequences=slots + 5)
    engine, outcomes = Engine(model, slots=slots, step_tokens=64 if split else 32, reproducible=split), {}
    made = [submit(engine, ask, outcomes, at) for at, ask in enumerate(rows)]
    step, gone = 0, set()
    while engine.busy:
        now = [at for at, when in unwanted.items() if when == step and at < len(rows)]
        gone.update(at for at in now if at not in outcomes)
        engine.cancel([made[at] for at in now])
        engine.step()
        assert not any(made[at] in engine._scheduler.running for at in gone)
        step += 1
    assert sorted(outcomes) == sorted(set(range(len(rows))) - gone)
    assert {at: summary(found) for at, found in outcomes.items()} == {at: alone(rows[at]) for at in outcomes}
    assert model.used <= engine._scheduler._cells.total


def test_a_shared_beginning_is_decoded_once():
    model = FakeModel(cells=4096, max_sequences=21)
    decoded = []
    model.fails = lambda batch: decoded.extend(batch.tokens)
    rows = [Ask(b"s" * 100, bytes([65 + at]), 3, 0.0) for at in range(20)]
    outcomes = run(model, 16, rows)
    assert decoded.count(ord("s")) - sum(o.text[:-1].count("s") for o in outcomes.values()) == 100
    assert sorted(o.cached_tokens for o in outcomes.values()) == [0] + [100] * 19


def test_cells_of_finished_rows_are_given_back():
    model = FakeModel(cells=300, max_sequences=9)
    run(model, 4, [Ask(b"", bytes([40 + at]) * 50, 20, 0.0) for at in range(20)])
    assert model.used <= 4 * 70


def test_a_prompt_that_fills_the_context_is_refused_and_one_below_is_answered():
    model = FakeModel(context=64, max_sequences=9)
    engine, outcomes = Engine(model, slots=4), {}
    with pytest.raises(RowError, match="63 tokens of prompt") as refused:
        submit(engine, Ask(b"", b"x" * 64, 5, 0.0), outcomes, 0)
    assert refused.value.code == "context_length_exceeded"
    fitting = Ask(b"", b"x" * 63, 5, 0.0)
    submit(engine, fitting, outcomes, 1)
    while engine.busy:
        engine.step()
    assert summary(outcomes[1]) == alone(fitting, context=64)
    assert outcomes[1].completion_tokens == 1


def test_a_row_past_its_deadline_is_an_error_and_its_neighbour_an_answer():
    now = [0.0]
    model = FakeModel(max_sequences=9)
    engine, outcomes = Engine(model, slots=4, clock=lambda: now[0]), {}
    submit(engine, Ask(b"", b"slow", 200, 1.0), outcomes, 0, seconds=5)
    neighbour = Ask(b"", b"fast", 20, 0.0)
    submit(engine, neighbour, outcomes, 1)
    while engine.busy:
        engine.step()
        now[0] += 1
    assert isinstance(outcomes[0], RowError)
    assert outcomes[0].code == "deadline_exceeded"
    assert summary(outcomes[1]) == alone(neighbour)


def test_a_single_row_without_room_is_a_broken_engine_not_an_endless_loop():
    def refuse(_: Batch) -> None:
        raise NoRoom("never")

    engine, outcomes = Engine(FakeModel(fails=refuse), slots=2), {}
    submit(engine, Ask(b"", b"x", 5, 0.0), outcomes, 0)
    with pytest.raises(WorkerError, match="no room for a single row"):
        engine.step()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(asks, st.booleans(), st.integers(0, 20)), min_size=1, max_size=14),
    slots=st.integers(1, 5),
    split=st.booleans(),
)
def test_whoever_comes_first_every_row_gets_the_text_that_it_gets_alone(rows, slots, split):
    model = FakeModel(cells=900, split=split, max_sequences=slots + 5)
    engine, outcomes = Engine(model, slots=slots, step_tokens=64 if split else 32, reproducible=split), {}
    step = 0
    while engine.busy or step <= 20:
        for at, (ask, interactive, when) in enumerate(rows):
            if when == step:
                priority = Priority.INTERACTIVE if interactive else Priority.BATCH
                submit(engine, ask, outcomes, at, priority=priority)
        engine.step()
        step += 1
        assert step < 20_000
    assert [summary(outcomes[at]) for at in range(len(rows))] == [alone(ask) for ask, _, _ in rows]


def test_an_interactive_row_gets_a_slot_at_once_though_batch_rows_fill_all():
    model = FakeModel(cells=4096, max_sequences=13)
    engine, outcomes = Engine(model, slots=8), {}
    for at in range(20):
        submit(engine, Ask(b"", bytes([40 + at]) * 30, 100, 1.0), outcomes, at)
    engine.step()
    assert engine.running == 8
    urgent = [
        submit(engine, Ask(b"", b"now", 3, 0.0), outcomes, 20 + at, priority=Priority.INTERACTIVE)
        for at in range(3)
    ]
    engine.step()
    assert all(row.started is not None for row in urgent)
    assert engine.counters.preemptions == 3
    while engine.busy:
        engine.step()
    assert sorted(outcomes) == list(range(23))


def test_interactive_rows_leave_batch_rows_their_part():
    engine, outcomes = Engine(FakeModel(cells=4096, max_sequences=13), slots=8), {}
    for at in range(40):
        submit(engine, Ask(b"", b"talk" * 5, 30, 1.0), outcomes, at, priority=Priority.INTERACTIVE)
    submit(engine, Ask(b"", b"batch", 3, 0.0), outcomes, 40)
    engine.step()
    assert 40 in outcomes or any(row.priority is Priority.BATCH for row in engine._scheduler.running)


def test_an_interactive_row_that_waits_too_long_is_told_so():
    now = [0.0]
    engine, outcomes = Engine(FakeModel(max_sequences=9), slots=1, clock=lambda: now[0]), {}
    for at in range(2):
        submit(engine, Ask(b"", b"slow", 100, 1.0), outcomes, at, waiting=5, priority=Priority.INTERACTIVE)
    while engine.busy:
        engine.step()
        now[0] += 1
    assert outcomes[1].code == "deadline_exceeded"
    assert "no slot" in outcomes[1].message
