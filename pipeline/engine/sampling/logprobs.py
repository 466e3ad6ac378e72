"""Log-probabilities of tokens in the model's own distribution: before bias, penalties, masks, temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """token's natural-log probability, and the likeliest tokens in its place, falling."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """logits: shape [vocabulary]. top: how many of the likeliest tokens to tell."""
    total = log_sum(logits)
    best = np.argpartition(logits, -top)[-top:] if top else np.empty(0, np.int64)
    best = best[np.lexsort((best, -logits[best]))]
    likeliest = tuple((int(t), float(logits[t]) - total) for t in best)
    return TokenLogprob(token, float(logits[token]) - total, likeliest)


def log_sum(logits: NDArray[np.float32]) -> float:
    """The natural log of the sum of exp(logits)."""
    peak = float(logits.max())
    return peak + float(np.log(np.exp(logits - np.float32(peak)).sum(dtype=np.float64)))
