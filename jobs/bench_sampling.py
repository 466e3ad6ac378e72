"""How much time 64 slots and a vocabulary of 128,256 words leave in samplers.

    python jobs/bench_sampling.py [--rounds N] [--threads N]

A small model with random weights generates with each setting of the samplers: the share of the time
outside llama_decode is the most that sampling can cost there, and far above that of a real model,
whose decode takes many times longer. Then the samplers alone, on random logits, in one thread and in
several. Settings and threads take turns; medians over the rounds; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from random_model import write_random_model

from pipeline.config import EngineConfig
from pipeline.engine.engine import Engine
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.model import Vocabulary
from pipeline.engine.sampling.sampling import Sampler, SamplingParams, new_sampler
from pipeline.engine.sequence import Sequence
from pipeline.engine.settings import fit
from pipeline.engine.text import TextStream

WORDS, SLOTS, PROMPT = 128_256, 64, 16
DEFAULT = SamplingParams()
SETTINGS = {
    "greedy": replace(DEFAULT, temperature=0, repeat_penalty=1),
    "default": DEFAULT,
    "top_k 0": replace(DEFAULT, top_k=0),
    "top_k 0, min_p 0": replace(DEFAULT, top_k=0, min_p=0),
    "typical": replace(DEFAULT, typical_p=0.9),
    "typical, top_k 0": replace(DEFAULT, typical_p=0.9, top_k=0),
    "dry": replace(DEFAULT, dry_multiplier=0.8),
    "xtc": replace(DEFAULT, xtc_probability=0.5),
    "mirostat 1": replace(DEFAULT, mirostat=1),
    "mirostat 2": replace(DEFAULT, mirostat=2),
}
Figures = dict[str, dict[str, float]]


def outside_decode(model: LlamaGenerativeModel, params: SamplingParams, samplers: int, tokens: int) -> float:
    """Share of the time outside llama_decode while SLOTS rows generate `tokens` tokens each."""
    for sequence in range(model.max_sequences):
        model.forget(sequence)
    engine = Engine(model, slots=SLOTS, samplers=samplers)
    draw = np.random.default_rng(2)
    for seed in range(SLOTS):
        prompt = draw.integers(300, WORDS, PROMPT).tolist()
        sampler = partial(new_sampler, replace(params, seed=seed), prompt, model.vocabulary)
        stream = TextStream(model.vocabulary.piece)
        row = Sequence(prompt, tokens + 1, sampler, stream, lambda outcome: None)
        engine.submit([engine.prepare(row)])
    while engine.busy and engine.counters.completion_tokens < SLOTS:
        engine.step()
    began = replace(engine.counters)
    while engine.busy:
        engine.step()
    busy = engine.counters.busy_seconds - began.busy_seconds
    return 1 - (engine.counters.decode_seconds - began.decode_seconds) / busy


def alone(vocabulary: Vocabulary, logits: NDArray[np.float32], params: SamplingParams, threads: int) -> float:
    """Microseconds per row of SLOTS samplers on `logits`, which are copied first."""
    prompt = list(range(300, 300 + PROMPT))
    samplers = [new_sampler(replace(params, seed=seed), prompt, vocabulary) for seed in range(SLOTS)]
    pairs = list(zip(samplers, logits.copy(), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        if threads == 1:
            _sample(pairs)
        else:
            list(pool.map(_sample, [pairs[at::threads] for at in range(threads)]))
        return (time.perf_counter() - began) / SLOTS * 1e6


def _sample(pairs: list[tuple[Sampler, NDArray[np.float32]]]) -> None:
    for sampler, logits in pairs:
        sampler.sample(logits)


def medians(rounds: int, runs: dict[tuple[str, str], Callable[[], float]]) -> Figures:
    """Of each run, by its two names; all take their turn in each round."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for names, run in runs.items():
            seen[names].append(run())
    figures: Figures = defaultdict(dict)
    for (setting, how), values in seen.items():
        figures[setting][how] = round(median(values), 4)
    return figures


def thread_counts(threads: int) -> Iterator[tuple[str, int]]:
    yield "1 thread", 1
    if threads > 1:
        yield f"{threads} threads", threads


def shares(model: LlamaGenerativeModel, rounds: int, threads: int, tokens: int) -> Figures:
    return medians(
        rounds,
        {
            (name, how): partial(outside_decode, model, params, count, tokens)
            for name, params in SETTINGS.items()
            for how, count in thread_counts(threads)
        },
    )


def microseconds(vocabulary: Vocabulary, rounds: int, threads: int) -> Figures:
    logits = np.random.default_rng(3).normal(0, 3, (SLOTS, WORDS)).astype(np.float32)
    return medians(
        rounds,
        {
            (name, how): partial(alone, vocabulary, logits, params, count)
            for name, params in SETTINGS.items()
            for how, count in thread_counts(threads)
        },
    )


def show(title: str, figures: Figures) -> None:
    print(title)
    for setting, values in figures.items():
        print(f"  {setting:18}" + "".join(f"{how}: {value:<10g}" for how, value in values.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of the model, and of the samplers")
    parser.add_argument("--tokens", type=int, default=4, help="that each row generates in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.gguf"
        write_random_model(path, WORDS)
        file = LlamaFile(path)
        config = EngineConfig(slots=SLOTS, context=256, reproducible=False)
        settings = fit(config, file.traits, threads=options.threads, on_gpu=False, memory=8 << 30)
        model = LlamaGenerativeModel(file, settings)
        outside = shares(model, options.rounds, options.threads, options.tokens)
        show(f"share of the time outside llama_decode, {SLOTS} slots, {WORDS:,} words", outside)
        sampling = microseconds(model.vocabulary, options.rounds, options.threads)
        show(f"samplers alone, microseconds a row, {SLOTS} rows", sampling)
    about = {"slots": SLOTS, "words": WORDS, "rounds": options.rounds, "threads": options.threads}
    print(json.dumps(about | {"outside_decode": outside, "microseconds_a_row": sampling}))


if __name__ == "__main__":
    main()
