"""How a token is chosen from logits: the likeliest, a draw from what the cuts leave, or mirostat.

Source of each rule and of their order: llama.cpp, common/sampling.cpp and src/llama-sampler.cpp.
A choice consumes its random numbers when a token is accepted, one per token of the text: forced
tokens count like drawn ones, so that leaving out draws without a choice changes no later draw.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.candidates import Candidates, allowed, falling, likeliest

# llama.cpp's m: how many of the likeliest tokens tell how fast probabilities fall.
_MIROSTAT_CANDIDATES = 100


class Choice(Protocol):
    """Picks one row's tokens."""

    @property
    def heavy(self) -> bool:
        """Whether a choice compares nearly all tokens with each other."""

    def choose(self, logits: NDArray[np.float32]) -> int:
        """A token of `logits`, shape [vocabulary]. Raises RowError where all are -inf."""

    def again(self) -> None:
        """The next choice is one more in the same place, by chance of its own."""

    def accept(self, token: int) -> None:
        """`token` is part of the text now."""


class Uniform:
    """Numbers between 0 and 1, one per place in the text. `stream` tells several of one seed apart."""

    def __init__(self, seed: int, stream: int = 0) -> None:
        self._random = np.random.Generator(np.random.Philox(key=(stream << 64) | (seed & (2**64 - 1))))
        self.advance()

    def advance(self) -> None:
        self.value = self._random.random()


class Places:
    """A number for each place in the text, and more for a place where a choice is made again."""

    def __init__(self, seed: int) -> None:
        self._first, self._more = Uniform(seed), Uniform(seed, stream=3)
        self.value = self._first.value

    def again(self) -> None:
        self._more.advance()
        self.value = self._more.value

    def advance(self) -> None:
        self._first.advance()
        self.value = self._first.value


class Greedy:
    """The token of the largest logit."""

    heavy = False

    def choose(self, logits: NDArray[np.float32]) -> int:
        return likeliest(logits)

    def again(self) -> None:
        pass

    def accept(self, token: int) -> None:
        pass


class Exclusion:
    """xtc: with `probability`, the top choices but the least likely of them are left out."""

    def __init__(self, probability: float, threshold: float, seed: int) -> None:
        self._probability = probability
        self._threshold = threshold
        self.chance = Uniform(seed, stream=1)

    def apply(self, candidates: Candidates) -> Candidates:
        if self._threshold > 0.5 or self.chance.value > self._probability:
            return candidates
        return candidates.without_top_choices(self._threshold)


class Draw:
    """top_k, typical, top_p, min_p, xtc, temperature, and a draw from what is left."""

    def __init__(
        self,
        *,
        top_k: int,
        typical_p: float,
        top_p: float,
        min_p: float,
        exclusion: Exclusion | None,
        temperature: float,
        seed: int,
    ) -> None:
        self._top_k, self._typical_p, self._top_p, self._min_p = top_k, typical_p, top_p, min_p
        self._exclusion = exclusion
        self._temperature = temperature
        self._point = Places(seed)
        # Nothing cheap narrows the vocabulary down first.
        self.heavy = not top_k and (typical_p < 1 or not min_p)

    def kept(self, logits: NDArray[np.float32]) -> Candidates:
        """What may be drawn, with the logits that temperature has not changed yet."""
        candidates = allowed(logits, self._top_k).typical(self._typical_p)
        candidates = candidates.nucleus(self._top_p, self._min_p)
        return self._exclusion.apply(candidates) if self._exclusion else candidates

    def choose(self, logits: NDArray[np.float32]) -> int:
        kept = self.kept(logits)
        if self._temperature <= 0:
            return int(kept.tokens[falling(kept.logits, 1)[0]])
        return kept.heated(self._temperature).draw(self._point.value)[0]

    def again(self) -> None:
        self._point.again()

    def accept(self, token: int) -> None:
        self._point.advance()
        if self._exclusion:
            self._exclusion.chance.advance()


class Mirostat:
    """Draws so that the surprise of the text stays near `tau` bits; version 1 or 2 of the algorithm.

    Takes the place of all that `Draw` does but temperature, which is above 0.
    """

    heavy = False

    def __init__(self, version: int, *, tau: float, eta: float, temperature: float, seed: int) -> None:
        """eta: how fast a token's surprise moves the bound."""
        self._cut = {1: _mirostat_1, 2: _mirostat_2}[version]
        self._tau, self._eta = tau, eta
        self._temperature = temperature
        self._bound = 2 * tau
        self._point = Places(seed)
        self._drawn: tuple[int, float] | None = None

    def kept(self, logits: NDArray[np.float32]) -> Candidates:
        """What may be drawn, with the logits that temperature has changed."""
        return self._cut(allowed(logits).heated(self._temperature), self._bound, len(logits))

    def choose(self, logits: NDArray[np.float32]) -> int:
        self._drawn = self.kept(logits).draw(self._point.value)
        return self._drawn[0]

    def again(self) -> None:
        self._point.again()

    def accept(self, token: int) -> None:
        """A forced token has no surprise of its own, and leaves the bound where it is."""
        self._point.advance()
        if self._drawn and self._drawn[0] == token:
            self._bound -= self._eta * (-float(np.log2(self._drawn[1])) - self._tau)
        self._drawn = None


def _mirostat_1(candidates: Candidates, bound: float, vocabulary: int) -> Candidates:
    """The likeliest, as many as Zipf's law gives for a surprise of at most `bound` bits."""
    order = falling(candidates.logits, _MIROSTAT_CANDIDATES)
    falls = -np.diff(candidates.logits[order].astype(np.float64))
    places = np.log(np.arange(2, len(order) + 1) / np.arange(1, len(order)))
    with np.errstate(all="ignore"):
        slope = (places * falls).sum() / (places * places).sum()
        excess = slope - 1
        count = (excess * np.exp2(bound) / (1 - float(vocabulary) ** -excess)) ** (1 / slope)
    # Without two candidates, and where all are as likely, the law gives no number.
    whole = int(np.clip(np.nan_to_num(count, nan=1), 1, len(candidates)))
    return candidates.take(falling(candidates.logits, whole))


def _mirostat_2(candidates: Candidates, bound: float, vocabulary: int) -> Candidates:
    """Those with a surprise of at most `bound` bits, or else the likeliest."""
    total = np.log(candidates.weights().sum(dtype=np.float64))
    least = candidates.logits.max() + min(0.0, total - bound * np.log(2))
    return candidates.take(np.flatnonzero(candidates.logits >= np.float32(least)))
