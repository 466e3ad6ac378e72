"""Which tokens may be drawn, and how likely: llama.cpp's cuts over one row's logits.

The formulas are those of llama.cpp, src/llama-sampler.cpp. The vocabulary is never sorted as a whole
where a threshold tells enough: 128,000 logits are compared in microseconds and sorted in milliseconds.
A logit of -inf stands for a token that is not allowed, and is never among the candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RowError

_COLUMN = 64  # keys of which the largest stands for the rest at first
_FEW = (1024, 8192)  # candidates among which most draws end
_LOWEST = np.finfo(np.float32).min  # above -inf, and no logit is lower


@dataclass(frozen=True, slots=True)
class Candidates:
    """Parallel arrays: token ids, and their finite logits. At least one."""

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, indices: NDArray[np.int64]) -> Candidates:
        return Candidates(self.tokens[indices], self.logits[indices])

    def heated(self, temperature: float) -> Candidates:
        return Candidates(self.tokens, self.logits / np.float32(temperature))

    def weights(self) -> NDArray[np.float32]:
        """In proportion to the probabilities; the largest is 1."""
        weights: NDArray[np.float32] = np.exp(self.logits - self.logits.max())
        return weights

    def typical(self, share: float) -> Candidates:
        """Those whose surprise is nearest to the expected one, until `share` is theirs."""
        if share >= 1:
            return self
        weights = self.weights()
        total = weights.sum(dtype=np.float64)
        # float32 throughout, for speed: a scalar of float64 would widen the whole array.
        surprise = np.float32(np.log(total)) - (self.logits - self.logits.max())
        entropy = np.float32((weights * surprise).sum(dtype=np.float64) / total)
        nearness = -np.abs(surprise - entropy)
        return self.take(np.sort(beginning(nearness, weights, share * total)))

    def nucleus(self, top_p: float, min_p: float) -> Candidates:
        """The likeliest whose shares reach `top_p`, without those below `min_p` of the likeliest.

        Both keep a beginning of the falling order, so that the cheaper one may go first.
        """
        kept = self._at_least(min_p)
        if top_p >= 1:
            return kept
        needed = top_p * float(self.weights().sum(dtype=np.float64))
        return kept.take(beginning(kept.logits, kept.weights(), needed))

    def _at_least(self, min_p: float) -> Candidates:
        if min_p <= 0:
            return self
        least = self.logits.max() + np.float32(np.log(min_p))
        return self.take(np.flatnonzero(self.logits >= least))

    def without_top_choices(self, threshold: float) -> Candidates:
        """Drops all of those with a probability of at least `threshold`, but the least likely of them."""
        weights = self.weights()
        least = np.float32(threshold * weights.sum(dtype=np.float64))
        top = int(np.count_nonzero(weights >= least))
        if top < 2:
            return self
        dropped = falling(self.logits, top - 1)
        return Candidates(np.delete(self.tokens, dropped), np.delete(self.logits, dropped))

    def draw(self, point: float) -> tuple[int, float]:
        """The token at `point` (0 to 1) of the shares laid end to end in falling order, and its share."""
        weights = self.weights()
        total = weights.sum(dtype=np.float64)
        chosen = int(beginning(self.logits, weights, point * total)[-1])
        return int(self.tokens[chosen]), float(weights[chosen] / total)


def likeliest(logits: NDArray[np.float32]) -> int:
    """The token of the largest logit. Raises RowError where there is none."""
    token = int(logits.argmax())
    if np.isfinite(logits[token]):
        return token
    if logits[token] != -np.inf:
        raise RowError("server_error", "the model gave logits that are not finite numbers")
    reason = "logit_bias bans every token that the row's constraint allows in one place"
    raise RowError("invalid_request", reason, "logit_bias")


def allowed(logits: NDArray[np.float32], top_k: int = 0) -> Candidates:
    """The `top_k` likeliest tokens of `logits`, shape [vocabulary]; 0: all. Raises RowError without any."""
    likeliest(logits)
    if not top_k and logits.min() > -np.inf:
        return Candidates(_places(len(logits)), logits)
    tokens = falling(logits, top_k) if top_k > 0 else np.flatnonzero(logits >= _LOWEST)
    return Candidates(tokens, logits[tokens])


@lru_cache(4)
def _places(count: int) -> NDArray[np.int64]:
    return np.arange(count)


def beginning(keys: NDArray[np.float32], weights: NDArray[np.float32], needed: float) -> NDArray[np.int64]:
    """Indices by falling key: the fewest whose weights reach `needed` together; all where none do."""
    for count in (*_FEW, len(keys)):
        order = falling(keys, count)
        cumulative = np.cumsum(weights[order], dtype=np.float64)
        if cumulative[-1] >= needed:
            break
    return order[: int(np.searchsorted(cumulative, needed)) + 1]


def falling(keys: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest keys, largest first, lower index first in a tie; none of -inf."""
    found = np.flatnonzero(keys >= _reach(keys, count))
    # One integer per key, ascending: the key's bits in falling order, then the index.
    bits = (keys[found] + np.float32(0)).view(np.int32)
    rank = ~(bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF)))
    packed = (rank.astype(np.int64) << 32) | np.arange(len(found))
    if count < len(packed):
        packed = np.partition(packed, count - 1)[:count]
    packed.sort()
    order: NDArray[np.int64] = found[packed & 0xFFFFFFFF]
    return order


def _reach(keys: NDArray[np.float32], count: int) -> np.float32:
    """A bound that the `count` largest keys reach: each column's largest is a key of its own."""
    height = min(_COLUMN, len(keys) // (2 * count))
    if height < 2:
        return _LOWEST
    width = len(keys) // height
    largest = keys[: height * width].reshape(height, width).max(axis=0)
    return max(np.partition(largest, width - count)[width - count], _LOWEST)
