"""Sampling against a slow, plain reading of llama.cpp's samplers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.engine.sampling.candidates import falling
from pipeline.engine.sampling.sampling import Sampler, SamplingParams, new_sampler
from pipeline.errors import RowError

VOCABULARY = 20_000  # large enough for the search by columns
# Nothing but temperature 1: the probabilities are those of the logits.
PLAIN = SamplingParams(temperature=1, top_k=0, top_p=1, min_p=0, repeat_penalty=1)
GREEDY = replace(PLAIN, temperature=0)


class Words(FakeVocabulary):
    size = VOCABULARY


def sampler_of(params: SamplingParams, prompt: list[int] | None = None) -> Sampler:
    return new_sampler(params, prompt or [], Words())


def logits_of(seed: int, size: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def text_of(sampler: Sampler, logits: np.ndarray, tokens: int) -> list[int]:
    """So many tokens, all from the same logits."""
    text = []
    for _ in range(tokens):
        text.append(sampler.sample(logits.copy()))
        sampler.accept(text[-1])
    return text


def masked(logits: np.ndarray, allowed: list[int]) -> np.ndarray:
    mask = np.full_like(logits, -np.inf)
    mask[allowed] = logits[allowed]
    return mask


def plain_candidates(logits: list[float], params: SamplingParams, past: list[int]) -> dict[int, float]:
    """Probability by token of what may be drawn."""
    logits = list(logits)
    for token, bias in params.logit_bias:
        logits[token] += bias if bias > -100 else -math.inf
    for token, count in Counter(past[-64:]).items():
        value = logits[token]
        value = value / params.repeat_penalty if value > 0 else value * params.repeat_penalty
        logits[token] = value - count * params.frequency_penalty - params.presence_penalty
    kept = sorted(range(len(logits)), key=lambda token: -logits[token])[: params.top_k or None]
    weights = [math.exp(logits[token] - logits[kept[0]]) for token in kept]
    total, cumulative = sum(weights), 0.0
    nucleus = []
    for token, weight in zip(kept, weights, strict=True):
        nucleus.append(token)
        cumulative += weight / total
        if cumulative >= params.top_p:
            break
    least = math.exp(0) * params.min_p
    nucleus = [token for token in nucleus if math.exp(logits[token] - logits[kept[0]]) >= least]
    heated = {t: math.exp((logits[t] - logits[kept[0]]) / params.temperature) for t in nucleus}
    return {token: weight / sum(heated.values()) for token, weight in heated.items() if weight}


cuts = st.fixed_dictionaries(
    {
        "top_k": st.sampled_from([0, 1, 5, 40]),
        "top_p": st.sampled_from([0.0, 0.3, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5]),
        "repeat_penalty": st.sampled_from([1.0, 1.1, 0.9]),
        "presence_penalty": st.sampled_from([0.0, 1.5]),
        "logit_bias": st.sampled_from([(), ((3, -100.0), (4, 5.0), (5, -2.5))]),
    }
)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), how=cuts)
def test_a_drawn_token_is_one_that_llama_cpp_would_keep(seed, how):
    logits, past = logits_of(seed), list(range(0, 200, 3))
    expected = plain_candidates(logits.tolist(), SamplingParams(0.7, **how), past)
    for draw in range(5):
        token = sampler_of(SamplingParams(0.7, seed=draw, **how), past).sample(logits.copy())
        assert token in expected


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    how=cuts,
    allowed=st.sets(st.integers(0, VOCABULARY - 1), min_size=1, max_size=50),
    typical_p=st.sampled_from([0.5, 1.0]),
    xtc_probability=st.sampled_from([0.0, 1.0]),
    mirostat=st.sampled_from([0, 1, 2]),
    temperature=st.sampled_from([0.0, 0.7, 5.0]),
)
def test_a_token_that_is_not_allowed_is_never_drawn(seed, how, allowed, temperature, **more):
    allowed -= {3}  # logit_bias bans it
    if not allowed:
        return
    sampler = sampler_of(SamplingParams(temperature, seed=seed, **how, **more), list(range(0, 200, 3)))
    for step in range(5):
        token = sampler.sample(masked(logits_of(seed + step), sorted(allowed)))
        assert token in allowed
        sampler.accept(token)


@pytest.mark.parametrize("params", [GREEDY, PLAIN, SamplingParams(), replace(PLAIN, mirostat=2)])
def test_where_no_token_is_left_the_row_ends_in_an_error(params):
    only = replace(params, logit_bias=((7, -100.0),))
    assert sampler_of(only).sample(masked(logits_of(1), [6, 7])) == 6
    with pytest.raises(RowError) as refused:
        sampler_of(only).sample(masked(logits_of(1), [7]))
    assert refused.value.param == "logit_bias"


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(), replace(PLAIN, mirostat=1)])
def test_logits_that_are_not_numbers_end_the_row_in_an_error(params):
    with pytest.raises(RowError) as refused:
        sampler_of(params).sample(np.full(VOCABULARY, np.nan, np.float32))
    assert refused.value.code == "server_error"


@pytest.mark.parametrize("top_k", [0, 4])
@pytest.mark.parametrize("spread", [0.1, 3])
def test_draws_follow_the_probabilities(top_k, spread):
    """A narrow spread: far more candidates than the draws are looked for in at first."""
    params = SamplingParams(temperature=0.7, top_k=top_k, top_p=1, min_p=0, repeat_penalty=1, seed=3)
    logits = logits_of(1) * np.float32(spread)
    chances = plain_candidates(logits.tolist(), params, [])
    draws, sampler = 4000, sampler_of(params)
    counts = Counter(text_of(sampler, logits, draws))
    assert set(counts) <= set(chances)
    # Tokens in bundles: a single one of very many is drawn too seldom to tell anything.
    order = sorted(chances, key=chances.__getitem__)
    for bundle in np.array_split(order, min(4, len(order))):
        chance = sum(chances[token] for token in bundle.tolist())
        # Five standard deviations of a binomial count; the seed is fixed.
        allowance = 5 * math.sqrt(max(0, draws * chance * (1 - chance))) + 1
        assert abs(sum(counts[token] for token in bundle.tolist()) - draws * chance) < allowance


@settings(deadline=None, max_examples=60)
@given(
    levels=st.integers(1, 40),
    size=st.integers(1, 3000),
    count=st.integers(1, 200),
    banned=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_falling_order_is_that_of_a_stable_sort(levels, size, count, banned, seed):
    draw = np.random.default_rng(seed)
    keys = draw.choice(np.linspace(-1, 1, levels), size).astype(np.float32)
    keys[draw.random(size) < banned] = -np.inf
    expected = [token for token in np.argsort(-keys, kind="stable") if keys[token] > -np.inf]
    assert falling(keys, count).tolist() == expected[:count]


@given(seed=st.integers(0, 2**40), other=st.integers(0, 2**40))
@settings(deadline=None, max_examples=20)
def test_the_seed_decides_the_draws(seed, other):
    def draws(seed: int) -> list[int]:
        return text_of(sampler_of(replace(PLAIN, temperature=2, seed=seed)), logits_of(7), 12)

    assert draws(seed) == draws(seed)
    assert (draws(seed) == draws(other)) == (seed == other)


@pytest.mark.parametrize("more", [{}, {"xtc_probability": 0.5}, {"mirostat": 2, "mirostat_eta": 0}])
def test_a_draw_depends_on_its_place_and_not_on_the_draws_before_it(more):
    params, logits = SamplingParams(repeat_penalty=1, seed=5, **more), logits_of(2)
    drawn, forced = sampler_of(params), sampler_of(params)
    text = text_of(drawn, logits, 20)
    for at, token in enumerate(text):
        if at % 3 == 0:
            assert [forced.sample(logits.copy()) for _ in range(3)] == [token] * 3
        forced.accept(token)


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_greedy_takes_the_largest_logit_after_penalties(seed):
    logits = logits_of(seed)
    best = int(logits.argmax())
    assert sampler_of(GREEDY, [best]).sample(logits.copy()) == best
    banned = replace(GREEDY, presence_penalty=2)
    logits[best] = 1.0 + (second := float(np.partition(logits, -2)[-2]))
    assert sampler_of(banned).sample(logits.copy()) == best
    assert logits[sampler_of(banned, [best]).sample(logits.copy())] == np.float32(second)


def test_the_penalties_forget_what_is_more_than_64_tokens_back():
    params = replace(GREEDY, presence_penalty=2)
    logits = np.zeros(100, np.float32)
    logits[5] = 1
    sampler = sampler_of(params, [5, *range(10, 73)])
    assert sampler.sample(logits.copy()) != 5
    sampler.accept(6)
    assert sampler.sample(logits.copy()) == 5


def test_forced_tokens_are_penalised_like_sampled_ones():
    sampler, logits = sampler_of(replace(GREEDY, presence_penalty=2)), np.zeros(100, np.float32)
    logits[5] = 1
    assert sampler.sample(logits.copy()) == 5
    sampler.accept(5)
    assert sampler.sample(logits.copy()) != 5


@pytest.mark.parametrize("params", [GREEDY, PLAIN, SamplingParams(), replace(PLAIN, mirostat=2)])
def test_a_bias_comes_before_all_else_and_100_decides(params):
    logits = logits_of(3, 260)
    best = int(logits.argmax())
    banned = sampler_of(replace(params, logit_bias=((best, -100.0),)))
    assert best not in text_of(banned, logits, 100)
    chosen = sampler_of(replace(params, logit_bias=((17, 100.0),)))
    assert chosen.sample(logits.copy()) == 17


def test_a_small_bias_moves_a_greedy_choice_only_where_it_suffices():
    logits = logits_of(4)
    best, second = falling(logits, 2).tolist()
    gap = float(logits[best] - logits[second])
    for bias, expected in [(0.9 * gap, best), (1.1 * gap, second)]:
        assert sampler_of(replace(GREEDY, logit_bias=((second, bias),))).sample(logits.copy()) == expected


def test_a_bias_for_a_token_that_the_model_has_not_is_refused_by_name():
    with pytest.raises(RowError, match=f"no token {VOCABULARY}") as refused:
        sampler_of(SamplingParams(logit_bias=((VOCABULARY, 1.0),)))
    assert refused.value.param == "logit_bias"


@given(least=st.integers(0, 30), ignore=st.booleans())
@settings(deadline=None, max_examples=20)
def test_ends_are_held_back_until_min_tokens_or_for_ever(least, ignore):
    ends = (2, 9)
    logits = np.zeros(260, np.float32)
    logits[[2, 9, 50]] = [3, 2, 1]
    sampler = sampler_of(replace(GREEDY, min_tokens=least, ignore_eos=ignore, end_tokens=ends))
    text = text_of(sampler, logits, 40)
    assert text == ([50] * 40 if ignore else [50] * least + [2] * (40 - least))


def test_where_only_the_end_may_follow_it_is_not_held_back():
    sampler = sampler_of(replace(GREEDY, min_tokens=9, end_tokens=(2,)))
    assert sampler.sample(masked(np.zeros(260, np.float32), [2])) == 2


def bits(text: list[int]) -> float:
    """Mean surprise of a token of `text`, in the distribution of its own tokens."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [1.5, 3.0])
def test_mirostat_keeps_the_surprise_near_its_target(version, tau):
    logits = logits_of(5, 2000)
    params = replace(PLAIN, mirostat=version, mirostat_tau=tau, seed=1)
    assert abs(bits(text_of(sampler_of(params), logits, 1200)[200:]) - tau) < 0.3
    assert bits(text_of(sampler_of(replace(PLAIN, seed=1)), logits, 1000)) > tau + 2


def test_a_model_without_dry_refuses_it_by_name():
    with pytest.raises(RowError) as refused:
        sampler_of(SamplingParams(dry_multiplier=0.8))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "dry_multiplier")


def test_a_choice_that_is_made_again_has_the_frequencies_of_what_is_left():
    logits = np.array([2.0, 1.5, 1.0, 0.0], np.float32)
    params = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    counts = np.zeros(4)
    for seed in range(3000):
        sampler = new_sampler(SamplingParams(seed=seed, **params), [0], FakeVocabulary())
        left = logits.copy()
        token = sampler.sample(left)
        while token in (0, 2):
            left[token] = -np.inf
            token = sampler.again(left)
        counts[token] += 1
    expected = 3000 * np.exp(logits[[1, 3]]) / np.exp(logits[[1, 3]]).sum()
    assert ((counts[[1, 3]] - expected) ** 2 / expected).sum() < 10.8  # p = 0.001 at 1 degree of freedom
