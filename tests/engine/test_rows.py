"""What a row may ask of the engine beyond plain text: guides, several choices, log-probabilities."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel, FakeVocabulary, next_logits
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Generation, Sequence
from pipeline.engine.text import TextStream
from tests.engine.choice_guide import ChoiceGuide

VOCABULARY = FakeVocabulary()
PROMPTS = st.binary(min_size=1, max_size=90)
CHOICES = st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=5, unique=True).map(tuple)


def row(prompt: bytes, found: list[Any], *, seed: int = 1, temperature: float = 1.0, **asks: Any) -> Sequence:
    params = SamplingParams(temperature=temperature, seed=seed)
    sampler = partial(new_sampler, params, list(prompt), VOCABULARY)
    asks = {"max_tokens": 12, **asks}
    return Sequence(
        list(prompt), asks.pop("max_tokens"), sampler, TextStream(VOCABULARY.piece), found.append, **asks
    )


def run(*rows: Sequence, slots: int = 4, split: bool = False, **engine: Any) -> FakeModel:
    model = FakeModel(split=split, max_sequences=slots + 1, cells=4096, context=512)
    runs = Engine(model, slots=slots, reproducible=split, **engine)
    runs.submit([runs.prepare(one) for one in rows])
    for _ in range(2000):
        if not runs.busy:
            return model
        runs.step()
    raise AssertionError("the engine does not come to an end")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64) - logits.max()
    return exact - np.log(np.exp(exact).sum())


@settings(deadline=None, max_examples=100)
@given(prompt=PROMPTS, choices=CHOICES, split=st.booleans(), skip=st.booleans(), seed=st.integers(0, 99))
def test_a_guided_row_says_one_of_its_choices_and_is_the_same_with_forced_tokens_sampled(
    prompt, choices, split, skip, seed
):
    found: list[Generation] = []
    run(row(prompt, found, guide=ChoiceGuide(choices), seed=seed), split=split, skip_forced=skip)
    assert found[0].complete
    assert bytes(token for token in found[0].tokens if token < 256) in choices
    assert found[0].finish_reason == "stop"


def test_nothing_is_decoded_for_what_is_forced_from_the_first_to_the_last_token():
    found: list[Generation] = []
    model = run(row(b"who?", found, guide=ChoiceGuide((b"nobody",))))
    assert (found[0].text, found[0].completion_tokens, found[0].finish_reason) == ("nobody", 6, "stop")
    assert model.calls == 0


def test_a_row_is_finished_as_soon_as_its_choice_is_decided():
    found: list[Generation] = []
    model = run(row(b"who?", found, guide=ChoiceGuide((b"the baker", b"the miller"))))
    assert found[0].text in ("the baker", "the miller")
    assert model.calls == 1


def test_an_answer_that_ends_within_its_guide_is_marked():
    found: list[Generation] = []
    run(row(b"who?", found, guide=ChoiceGuide((b"the baker", b"the miller")), max_tokens=3))
    assert (found[0].text, found[0].finish_reason, found[0].complete) == ("the", "length", False)


@settings(deadline=None, max_examples=60)
@given(prompt=PROMPTS, count=st.integers(2, 6), slots=st.integers(1, 5), split=st.booleans())
def test_the_choices_of_a_row_are_those_that_each_would_have_alone(prompt, count, slots, split):
    alone: list[Generation] = []
    for seed in range(count):
        run(row(prompt, alone, seed=seed), split=split)
    forked: dict[int, list[Generation]] = {seed: [] for seed in range(count)}
    lead = row(prompt, forked[0], seed=0)
    others = [row(prompt, forked[seed], seed=seed, lead=lead) for seed in range(1, count)]
    run(lead, *others, slots=slots, split=split)
    assert [forked[seed][0].tokens for seed in range(count)] == [one.tokens for one in alone]


def test_a_prompt_is_decoded_once_for_all_choices():
    found: list[Generation] = []
    model = FakeModel(max_sequences=9)
    decoded: list[int] = []
    model.fails = lambda batch: decoded.extend(batch.tokens)
    engine = Engine(model, slots=8)
    lead = row(b"p" * 50, found, max_tokens=1)
    rows = [lead, *(row(b"p" * 50, found, seed=seed, max_tokens=1, lead=lead) for seed in range(2, 9))]
    engine.submit([engine.prepare(one) for one in rows])
    while engine.busy:
        engine.step()
    assert decoded == [ord("p")] * 50
    assert sorted(one.cached_tokens for one in found) == [0] + [50] * 7


@settings(deadline=None, max_examples=60)
@given(prompt=PROMPTS, top=st.integers(0, 5), split=st.booleans(), neighbours=st.integers(0, 3))
def test_log_probabilities_are_the_models_own(prompt, top, split, neighbours):
    found: list[Generation] = []
    others: list[Generation] = []
    asking = row(prompt, found, logprobs=top, echo=True)
    run(asking, *(row(prompt, others, seed=seed) for seed in range(neighbours)), split=split)
    tokens = [*prompt, *found[0].tokens]
    told = [*found[0].prompt_logprobs, *found[0].logprobs]
    assert told[0] is None
    assert len(told) == len(tokens)
    for at in range(1, len(tokens)):
        expected = log_softmax(next_logits(tokens[:at]))
        assert told[at].token == tokens[at]
        assert told[at].logprob == pytest.approx(expected[tokens[at]], abs=1e-5)
        assert [t for t, _ in told[at].top] == np.argsort(-expected, kind="stable")[:top].tolist()
        assert [p for _, p in told[at].top] == pytest.approx(np.sort(expected)[::-1][:top].tolist(), abs=1e-5)


@settings(deadline=None, max_examples=80)
@given(
    texts=st.lists(
        st.lists(st.sampled_from([b"a" * 40, b"b" * 30, b"c" * 70]), max_size=4), min_size=2, max_size=8
    ),
    slots=st.integers(1, 5),
)
def test_rows_share_beginnings_of_any_length(texts, slots):
    """In order, no token of a beginning that the row before it has as well is decoded again."""
    prompts = sorted(b"".join(parts) + bytes([at]) for at, parts in enumerate(texts))
    found: list[Generation] = []
    for slots_, split in ((slots, False), (slots, True)):
        rows = [row(prompt, found, max_tokens=1) for prompt in prompts]
        run(*rows, slots=slots_, split=split)
        for before, this in pairwise(rows):
            common = next(
                at for at, (a, b) in enumerate(zip(before.prompt, this.prompt, strict=False)) if a != b
            )
            assert (this.cached or 0) >= (common - 63 - 16 if split else common if common >= 16 else 0)


class Picky(ChoiceGuide):
    """Of its choices, it has only the letters up to b in its spelling."""

    def spells(self, token: int) -> bool:
        return token <= ord("b")

    def copy(self) -> Picky:
        return Picky(self._choices, self._said, self._labels)


@settings(deadline=None, max_examples=60)
@given(prompt=PROMPTS, seed=st.integers(0, 999), temperature=st.sampled_from([0.0, 1.0]))
def test_a_token_that_the_model_would_not_write_is_taken_only_where_no_other_may_come(
    prompt, seed, temperature
):
    found: list[Generation] = []
    run(row(prompt, found, guide=Picky((b"ax", b"bx", b"cx", b"dx")), seed=seed, temperature=temperature))
    assert found[0].text in ("ax", "bx")
