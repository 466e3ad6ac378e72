"""From logits to a token, in the order of llama.cpp: penalties, top_k, top_p, min_p, temperature, draw.

Source of the order and of each formula: llama.cpp, src/llama-sampler.cpp.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PENALTY_WINDOW = 64  # llama.cpp's penalty_last_n
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """temperature 0 is greedy; top_k 0 keeps all; the seed makes the draws repeatable."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0


class Sampler:
    """Draws one row's tokens. Its penalties look back over the last 64 tokens, prompt included."""

    def __init__(self, params: SamplingParams, prompt: list[int]) -> None:
        self._params = params
        self._random = np.random.Generator(np.random.Philox(key=params.seed & (2**64 - 1)))
        self._window = deque(prompt[-_PENALTY_WINDOW:], maxlen=_PENALTY_WINDOW)
        self._counts = Counter(self._window)
        self._penalises = bool(
            params.repeat_penalty != 1 or params.presence_penalty or params.frequency_penalty
        )

    def sample(self, logits: NDArray[np.float32]) -> int:
        """The next token from `logits`, shape [vocabulary], which it may write to."""
        if self._penalises:
            self._penalise(logits)
        return int(logits.argmax()) if self._params.temperature == 0 else self._draw(logits)

    def accept(self, token: int) -> None:
        """Takes a token that is part of the text now, sampled or forced."""
        if self._penalises:
            self._remember(token)

    def _penalise(self, logits: NDArray[np.float32]) -> None:
        tokens = np.fromiter(self._counts, np.int64, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        values, params = logits[tokens], self._params
        penalty = np.float32(params.repeat_penalty)
        values = np.where(values > 0, values / penalty, values * penalty)
        values -= counts * np.float32(params.frequency_penalty) + np.float32(params.presence_penalty)
        logits[tokens] = values

    def _remember(self, token: int) -> None:
        if len(self._window) == _PENALTY_WINDOW:
            oldest = self._window[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._window.append(token)
        self._counts[token] += 1

    def _draw(self, logits: NDArray[np.float32]) -> int:
        params = self._params
        tokens = _largest(logits, params.top_k)
        kept = logits[tokens].astype(np.float64)
        if params.top_p < 1:
            cumulative = np.cumsum(_softmax(kept))
            kept = kept[: int(np.searchsorted(cumulative, params.top_p)) + 1]
        if params.min_p > 0:
            kept = kept[kept >= kept[0] + np.log(params.min_p)]
        cumulative = np.cumsum(_softmax(kept / params.temperature))
        choice = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        return int(tokens[min(choice, len(kept) - 1)])


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of `values`, which are in falling order."""
    weights: NDArray[np.float64] = np.exp(values - values[0])
    weights /= weights.sum()
    return weights


def _largest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The tokens of the `count` largest logits (0: all), largest first, lower token first in a tie."""
    size = len(logits)
    candidates = np.arange(size)
    if 0 < count < size // (4 * _BLOCK):
        candidates = _blocks_of_largest(logits, count)
    values = logits[candidates]
    if 0 < count < len(values):
        # The count-th largest value as a threshold keeps ties, which the stable sort then settles.
        candidates = candidates[values >= np.partition(values, -count)[-count]]
        values = logits[candidates]
    return candidates[np.argsort(-values, kind="stable")][: count or None]


def _blocks_of_largest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Candidates among which the `count` largest are: a few whole blocks instead of the vocabulary.

    At most count - 1 blocks have a maximum above the count-th largest logit's own block.
    """
    whole = len(logits) // _BLOCK * _BLOCK
    maxima = logits[:whole].reshape(-1, _BLOCK).max(axis=1)
    threshold = np.partition(maxima, -count)[-count]
    blocks = np.flatnonzero(maxima >= threshold)
    inside = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
    return np.concatenate([inside, np.arange(whole, len(logits))])
