"""What changes logits before a token is chosen: bias, held-back ends, penalties.

The order and the formulas are those of llama.cpp, src/llama-sampler.cpp.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_FEW = 256  # logits
_PENALTY_WINDOW = 64  # llama.cpp's penalty_last_n
_BAN = -100.0


class LogitEdit(Protocol):
    """One row's change of logits, which may depend on the text so far. -inf stays -inf."""

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Changes `logits`, shape [vocabulary], in place."""

    def accept(self, token: int) -> None:
        """`token` is part of the text now."""


class Bias:
    """Adds to the logits of some tokens; -100 bans a token."""

    def __init__(self, biases: Sequence[tuple[int, float]]) -> None:
        """biases: token ids, each once, and what is added to their logits."""
        self._tokens = np.array([token for token, _ in biases], np.int64)
        self._values = np.array([bias_of(value) for _, value in biases], np.float32)

    def apply(self, logits: NDArray[np.float32]) -> None:
        logits[self._tokens] += self._values

    def accept(self, token: int) -> None:
        pass


def bias_of(value: float) -> float:
    """What a logit gains by a value of logit_bias."""
    return -np.inf if value <= _BAN else value


class HeldEnds:
    """Keeps the text from ending before it has that many tokens, unless nothing but the end may follow."""

    def __init__(self, ends: Sequence[int], tokens: float) -> None:
        """ends: the end-of-generation tokens. tokens: how many come before one of them, inf for all."""
        self._ends = np.array(ends, np.int64)
        self._missing = tokens

    def apply(self, logits: NDArray[np.float32]) -> None:
        if self._missing <= 0:
            return
        before = logits[self._ends]
        logits[self._ends] = -np.inf
        # Without a constraint, the first few tell what the whole vocabulary would.
        if logits[:_FEW].max() == -np.inf and logits.max() == -np.inf:
            logits[self._ends] = before

    def accept(self, token: int) -> None:
        self._missing -= 1


class Penalties:
    """Makes the tokens of the last 64, prompt included, less likely."""

    def __init__(self, prompt: Sequence[int], *, repeat: float, presence: float, frequency: float) -> None:
        self._repeat = np.float32(repeat)
        self._presence = np.float32(presence)
        self._frequency = np.float32(frequency)
        self._window = deque(prompt[-_PENALTY_WINDOW:], maxlen=_PENALTY_WINDOW)
        self._counts = Counter(self._window)

    def apply(self, logits: NDArray[np.float32]) -> None:
        tokens = np.fromiter(self._counts, np.int64, len(self._counts))
        counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
        values = logits[tokens]
        values = np.where(values > 0, values / self._repeat, values * self._repeat)
        logits[tokens] = values - (counts * self._frequency + self._presence)

    def accept(self, token: int) -> None:
        if len(self._window) == _PENALTY_WINDOW:
            oldest = self._window[0]
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._window.append(token)
        self._counts[token] += 1
