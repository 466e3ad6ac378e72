"""How one of a few labels is chosen by their scores: the likeliest, or a draw.

A draw takes the largest of score / temperature + g, where g is a number of Gumbel's distribution for each
label. That is a draw from softmax(score / temperature) (the Gumbel-max trick: E. J. Gumbel 1954; Maddison et
al., A* Sampling, 2014), and it lets most labels be ruled out before their scores are wholly known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.candidates import Candidates
from pipeline.engine.sampling.labels import Element

_STREAM = 2  # of random numbers, beside those of choices.py


@dataclass(frozen=True, slots=True)
class LabelParams:
    """temperature 0: the likeliest label. top_k, top_p, min_p: as for tokens, but of labels; off by default.
    bias: what the log-probability of a token gains wherever it is part of a label; -inf bans it."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    bias: tuple[tuple[int, float], ...] = ()


class LabelDraw:
    """One row's choices of labels, one after the other."""

    def __init__(self, params: LabelParams) -> None:
        self._params = params
        self._bias: Mapping[int, float] = dict(params.bias)
        self._random = np.random.Generator(
            np.random.Philox(key=(_STREAM << 64) | (params.seed & (2**64 - 1)))
        )

    @property
    def needs_all(self) -> bool:
        """Whether a choice compares the scores of all labels."""
        params = self._params
        return params.temperature > 0 and (params.top_k > 0 or params.top_p < 1 or params.min_p > 0)

    def noise(self, count: int) -> list[float]:
        """What each of `count` labels gains in the next choice, in units of `rank`."""
        if self._params.temperature <= 0:
            return [0.0] * count
        return [float(value) for value in self._random.gumbel(size=count)]

    def rank(self, score: float, noise: float) -> float:
        """The label of the largest one is chosen. It grows with the score."""
        return score / (self._params.temperature or 1.0) + noise

    def kept(self, scores: Sequence[float]) -> list[int]:
        """The labels that may be chosen by their scores."""
        if not self.needs_all or max(scores) == -math.inf:
            return list(range(len(scores)))
        params = self._params
        found: NDArray[np.float32] = np.array(scores, np.float32)
        candidates = Candidates(np.flatnonzero(np.isfinite(found)), found[np.isfinite(found)])
        if params.top_k > 0:
            order = np.argsort(-candidates.logits, kind="stable")[: params.top_k]
            candidates = candidates.take(order)
        return [int(label) for label in candidates.nucleus(params.top_p, params.min_p).tokens]

    def biased(self, found: Mapping[Element, float]) -> Mapping[Element, float]:
        """The log-probabilities of elements with what logit_bias adds to them."""
        if not self._bias:
            return found
        return {element: value + self._gain(element) for element, value in found.items()}

    def _gain(self, element: Element) -> float:
        return self._bias.get(element, 0.0) if isinstance(element, int) else 0.0
