"""Sampling against a slow, plain reading of llama.cpp's samplers."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.sampling import Sampler, SamplingParams

VOCABULARY = 20_000  # large enough for the search by blocks


def logits_of(seed: int, size: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, size).astype(np.float32)


def plain_candidates(logits: list[float], params: SamplingParams, past: list[int]) -> dict[int, float]:
    """Probability by token of what may be drawn."""
    logits = list(logits)
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
    return {token: weight / sum(heated.values()) for token, weight in heated.items()}


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    top_k=st.sampled_from([0, 1, 5, 40]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    repeat=st.sampled_from([1.0, 1.1, 0.9]),
    presence=st.sampled_from([0.0, 1.5]),
)
def test_a_drawn_token_is_one_that_llama_cpp_would_keep(seed, top_k, top_p, min_p, repeat, presence):
    how = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "repeat_penalty": repeat}
    logits, past = logits_of(seed), list(range(0, 200, 3))
    for draw in range(5):
        params = SamplingParams(0.7, presence_penalty=presence, seed=draw, **how)
        token = Sampler(params, past).sample(logits.copy())
        assert token in plain_candidates(logits.tolist(), params, past)


def test_draws_follow_the_probabilities():
    params = SamplingParams(temperature=0.7, top_k=4, top_p=1, min_p=0, repeat_penalty=1, seed=3)
    logits = logits_of(1)
    expected = plain_candidates(logits.tolist(), params, [])
    sampler, draws = Sampler(params, []), 4000
    counts = Counter(sampler.sample(logits.copy()) for _ in range(draws))
    assert set(counts) <= set(expected)
    for token, probability in expected.items():
        # Five standard deviations of a binomial count; the seed is fixed.
        spread = 5 * math.sqrt(draws * probability * (1 - probability)) + 1
        assert abs(counts[token] - draws * probability) < spread


@given(seed=st.integers(0, 2**40), other=st.integers(0, 2**40))
@settings(deadline=None, max_examples=20)
def test_the_seed_decides_the_draws(seed, other):
    def draws(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=2, top_k=0, top_p=1, min_p=0, seed=seed), [])
        return [sampler.sample(logits_of(7).copy()) for _ in range(12)]

    assert draws(seed) == draws(seed)
    assert (draws(seed) == draws(other)) == (seed == other)


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_greedy_takes_the_largest_logit_after_penalties(seed):
    logits = logits_of(seed)
    best = int(logits.argmax())
    assert Sampler(SamplingParams(temperature=0, repeat_penalty=1), [best]).sample(logits.copy()) == best
    banned = SamplingParams(temperature=0, repeat_penalty=1, presence_penalty=2)
    logits[best] = 1.0 + (second := float(np.partition(logits, -2)[-2]))
    assert Sampler(banned, []).sample(logits.copy()) == best
    assert logits[Sampler(banned, [best]).sample(logits.copy())] == np.float32(second)


def test_the_penalties_forget_what_is_more_than_64_tokens_back():
    params = SamplingParams(temperature=0, repeat_penalty=1, presence_penalty=2)
    logits = np.zeros(100, np.float32)
    logits[5] = 1
    sampler = Sampler(params, [5, *range(10, 73)])
    assert sampler.sample(logits.copy()) != 5
    assert sampler.sample(logits.copy()) == 5
