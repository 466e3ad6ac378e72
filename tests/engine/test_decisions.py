"""A choice is made among whole labels, by the numbers that are told of them (issue 10)."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel, FakeVocabulary, next_logits
from pipeline.engine.sampling.deciding import Deciding
from pipeline.engine.sampling.label_draw import LabelDraw, LabelParams
from pipeline.engine.sampling.labels import Labels, log_shares
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Generation, Sequence
from pipeline.engine.text import TextStream
from pipeline.errors import RowError
from tests.engine.choice_guide import ChoiceGuide, labels_of

VOCABULARY = FakeVocabulary()
PROMPTS = st.binary(min_size=1, max_size=90)
# Few letters, so that labels share beginnings and begin one another.
CHOICES = st.lists(
    st.text("ab", min_size=1, max_size=6).map(str.encode), min_size=2, max_size=9, unique=True
).map(tuple)
PLAIN = ChoiceGuide((b"yes" * 4, b"no"))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    exact = logits.astype(np.float64) - logits.max()
    return exact - np.log(np.exp(exact).sum())


def score(
    prompt: bytes, label: bytes, others: tuple[bytes, ...], bias: dict[int, float] | None = None
) -> float:
    """One label by itself: token by token, and its end where another label begins with it."""
    total = 0.0
    for at, token in enumerate(label):
        total += log_softmax(next_logits([*prompt, *label[:at]]))[token] + (bias or {}).get(token, 0.0)
    if any(other != label and other.startswith(label) for other in others):
        ends = log_softmax(next_logits([*prompt, *label]))[list(FakeVocabulary.end_tokens)]
        total += float(np.logaddexp.reduce(ends))
    return total


def scores(prompt: bytes, choices: tuple[bytes, ...]) -> list[float]:
    return [score(prompt, choice, choices) for choice in choices]


def row(prompt: bytes, found: list[Any], guide: ChoiceGuide | None, seed: int = 1, **asks: Any) -> Sequence:
    sampling = {name: asks.pop(name) for name in ("temperature", "labels", "logit_bias") if name in asks}
    params = SamplingParams(seed=seed, **{"temperature": 0.0, **sampling})
    sampler = partial(new_sampler, params, list(prompt), VOCABULARY)
    asks = {"max_tokens": 12, **asks}
    return Sequence(
        list(prompt),
        asks.pop("max_tokens"),
        sampler,
        TextStream(VOCABULARY.piece),
        found.append,
        guide,
        **asks,
    )


def run(*rows: Sequence, slots: int = 4, split: bool = False, cells: int = 4096, **engine: Any) -> FakeModel:
    model = FakeModel(split=split, max_sequences=slots + 1, cells=cells, context=256)
    model.shares_prefixes = engine.pop("cuts", True)
    runs = Engine(model, slots=slots, reproducible=split, **engine)
    runs.submit([runs.prepare(one) for one in rows])
    for _ in range(4000):
        if not runs.busy:
            return model
        runs.step()
    raise AssertionError("the engine does not come to an end")


def labelled(choices: tuple[bytes, ...]) -> ChoiceGuide:
    return ChoiceGuide(choices, labels=labels_of(choices))


@settings(deadline=None, max_examples=200)
@given(
    prompt=PROMPTS,
    choices=CHOICES,
    neighbours=st.integers(0, 5),
    split=st.booleans(),
    every=st.booleans(),
    logprobs=st.sampled_from([None, 0, 2]),
    options=st.fixed_dictionaries(
        {"skip_forced": st.booleans(), "share_prefixes": st.booleans(), "cuts": st.booleans()}
    ),
)
def test_the_answer_is_the_likeliest_label_whatever_the_engine_does(
    prompt, choices, neighbours, split, every, logprobs, options
):
    found: list[Generation] = []
    others: list[Generation] = []
    options["cuts"] |= split
    asking = row(prompt, found, labelled(choices), every_label=every, logprobs=logprobs)
    run(asking, *(row(prompt, others, PLAIN, seed) for seed in range(neighbours)), split=split, **options)
    expected = scores(prompt, choices)
    (decision,) = found[0].decisions
    assert found[0].text.encode() == choices[int(np.argmax(expected))] == choices[decision.chosen]
    assert found[0].complete
    assert decision.scores == (pytest.approx(expected, abs=1e-4) if every else ())
    if logprobs is not None:
        tokens = [*prompt, *found[0].tokens]
        for at, told in enumerate(found[0].logprobs, len(prompt)):
            assert told.logprob == pytest.approx(log_softmax(next_logits(tokens[:at]))[tokens[at]], abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    prompt=PROMPTS, choices=CHOICES, temperature=st.sampled_from([0.0, 0.7, 2.0]), seed=st.integers(0, 999)
)
def test_a_draw_is_the_same_whether_all_labels_are_scored_or_only_those_that_matter(
    prompt, choices, temperature, seed
):
    found: list[Generation] = []
    for every in (False, True):
        run(row(prompt, found, labelled(choices), seed, temperature=temperature, every_label=every))
    assert found[0].tokens == found[1].tokens


@settings(deadline=None, max_examples=40)
@given(prompt=PROMPTS, choices=CHOICES, count=st.integers(2, 5), split=st.booleans(), slots=st.integers(1, 5))
def test_choices_that_share_a_prompt_are_those_that_each_would_have_alone(
    prompt, choices, count, split, slots
):
    alone: list[Generation] = []
    forked: dict[int, list[Generation]] = {seed: [] for seed in range(count)}
    for seed in range(count):
        run(row(prompt, alone, labelled(choices), seed, temperature=1.0), split=split)
    lead = row(prompt, forked[0], labelled(choices), 0, temperature=1.0, every_label=True)
    rest = [
        row(prompt, forked[seed], labelled(choices), seed, temperature=1.0, lead=lead)
        for seed in range(1, count)
    ]
    # Rows of one request share their guide, and so its labels.
    for one in rest:
        one.guide = lead.guide
    run(lead, *rest, split=split, slots=slots)
    assert [forked[seed][0].tokens for seed in range(count)] == [one.tokens for one in alone]


@settings(deadline=None, max_examples=60)
@given(prompts=st.lists(PROMPTS, min_size=2, max_size=6), choices=CHOICES, cells=st.integers(130, 300))
def test_preempted_rows_decide_alike(prompts, choices, cells):
    found: dict[int, list[Generation]] = {at: [] for at in range(len(prompts))}
    rows = [row(prompt, found[at], labelled(choices), every_label=True) for at, prompt in enumerate(prompts)]
    run(*rows, cells=cells)
    for at, prompt in enumerate(prompts):
        assert found[at][0].decisions[0].scores == pytest.approx(scores(prompt, choices), abs=1e-4)


def test_where_first_tokens_differ_one_call_decides():
    """The first token rules all other labels out: each is one token, or falls below the best at once."""
    found: list[Generation] = []
    model = run(row(b"?", found, labelled((b"a", b"b", b"c"))))
    assert model.calls == 1


def test_a_label_is_tried_out_only_where_it_may_still_win():
    found: list[Generation] = []
    choices = tuple(f"{letter}{'x' * 9}".encode() for letter in "abcdefgh")
    few = run(row(b"?", found, labelled(choices))).calls
    every = run(row(b"?", found, labelled(choices), every_label=True)).calls
    assert found[0].text == found[1].text
    assert few < every == 1 + 8 * 9


def test_draws_have_the_frequencies_of_the_column():
    """Report: draws at temperature 1 over 2,000 seeds against `label_logprobs`."""
    choices = (b"a", b"ab", b"abc", b"b", b"ba", b"c")
    for temperature in (1.0, 0.6):
        drawn: Counter[bytes] = Counter()
        judged: list[Generation] = []
        run(row(b"draw", judged, labelled(choices), every_label=True, temperature=temperature))
        for first in range(0, 2000, 100):
            found: list[Generation] = []
            lead = row(b"draw", found, labelled(choices), first, temperature=temperature)
            rest = [
                row(b"draw", found, lead.guide, seed, temperature=temperature, lead=lead)
                for seed in range(first + 1, first + 100)
            ]
            run(lead, *rest)
            drawn.update(one.text.encode() for one in found)
        column = log_shares([score / temperature for score in judged[0].decisions[0].scores])
        assert chi_square([drawn[choice] for choice in choices], column) < 20.5  # p = 0.001, 5 degrees


def chi_square(counts: list[int], logprobs: list[float]) -> float:
    total = sum(counts)
    expected = [total * math.exp(value) for value in logprobs]
    return sum((count - wanted) ** 2 / wanted for count, wanted in zip(counts, expected, strict=True))


def decide(params: LabelParams, values: list[float]) -> int:
    """The label that is chosen, where each is one token."""
    logits = np.full(260, -50, np.float32)
    logits[: len(values)] = values
    labels = Labels(
        None, tuple(map(str, values)), tuple((at,) for at in range(len(values))), ((),) * len(values)
    )
    deciding = Deciding(labels, LabelDraw(params), every=False)
    deciding.take(logits)
    assert deciding.done
    return deciding.decision.chosen


@pytest.mark.parametrize(
    ("cuts", "kept"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 1}, {0}),
        ({"min_p": 0.2}, {0, 1}),  # shares of the likeliest: 1, 0.37, 0.14, 0.05
        ({"top_p": 0.85}, {0, 1}),  # shares of all: 0.64, 0.24, 0.09, 0.03
        ({"top_p": 0.6}, {0}),
        ({"top_k": 3, "top_p": 0.99}, {0, 1, 2}),
    ],
)
def test_cuts_are_made_among_labels(cuts, kept):
    drawn = {decide(LabelParams(temperature=1.5, seed=seed, **cuts), [3, 2, 1, 0]) for seed in range(300)}
    assert drawn == kept


def test_without_a_temperature_cuts_leave_the_likeliest():
    assert decide(LabelParams(top_k=2, top_p=0.5, min_p=0.9), [1, 3, 2, 0]) == 1


@settings(deadline=None, max_examples=40)
@given(
    prompt=PROMPTS,
    choices=CHOICES,
    bias=st.dictionaries(st.sampled_from(b"ab"), st.floats(-5, 5), max_size=2),
)
def test_a_bias_counts_for_each_token_of_a_label(prompt, choices, bias):
    found: list[Generation] = []
    run(row(prompt, found, labelled(choices), every_label=True, logit_bias=tuple(bias.items())))
    expected = [score(prompt, choice, choices, bias) for choice in choices]
    assert found[0].decisions[0].scores == pytest.approx(expected, abs=1e-4)
    assert found[0].decisions[0].chosen == int(np.argmax(found[0].decisions[0].scores))


def test_a_banned_token_bans_its_labels():
    found: list[Any] = []
    choices = (b"ab", b"ba", b"cc")
    run(row(b"?", found, labelled(choices), logit_bias=((ord("a"), -100.0),)))
    assert found[0].text == "cc"
    run(row(b"?", found, labelled(choices), logit_bias=((ord("a"), -100.0), (ord("c"), -100.0))))
    assert isinstance(found[1], RowError) and found[1].param == "logit_bias"


def test_labels_that_the_context_has_no_room_for_are_cut_off_and_say_so():
    found: list[Generation] = []
    run(row(b"p" * 250, found, labelled((b"a" * 40, b"b" * 40))))
    assert (found[0].finish_reason, found[0].complete, found[0].decisions) == ("length", False, ())


def test_a_label_longer_than_max_tokens_is_decided_and_cut_off():
    found: list[Generation] = []
    run(row(b"?", found, labelled((b"aaaaaa", b"bbbbbb")), max_tokens=3))
    assert (found[0].finish_reason, found[0].complete, len(found[0].text)) == ("length", False, 3)
    assert len(found[0].decisions) == 1


@given(st.lists(st.floats(-900, 0) | st.just(-math.inf), min_size=1, max_size=9))
def test_shares_add_up_to_one(values):
    assert sum(map(math.exp, log_shares(values))) == pytest.approx(1)
