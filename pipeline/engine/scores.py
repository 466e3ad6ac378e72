"""How a model reads a given text: what it would have said at each place, and how likely the text was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.model import Batch, GenerativeModel


@dataclass(frozen=True, slots=True)
class Scores:
    """One entry for each token of the text that has another one before it in its window.

    choices: the likeliest token there; losses: the natural-log loss of the text's own token.
    """

    choices: NDArray[np.int64]
    losses: NDArray[np.float64]

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.losses.mean()))

    def agreement(self, other: Scores) -> float:
        """The share of places at which both choose the same token; both must have read the same text."""
        return float((self.choices == other.choices).mean())


def score(model: GenerativeModel, tokens: Sequence[int]) -> Scores:
    """Reads `tokens`, at least two, in windows of the model's context, none of which knows the one before.

    Raises WorkerError. The model's sequence 0 must be empty, and is empty again afterwards.
    """
    windows = [tokens[at : at + model.context] for at in range(0, len(tokens), model.context)]
    parts = [_score_window(model, window) for window in windows if len(window) > 1]
    return Scores(
        np.concatenate([part.choices for part in parts]), np.concatenate([part.losses for part in parts])
    )


def _score_window(model: GenerativeModel, window: Sequence[int]) -> Scores:
    # A call gives no more rows of logits than there are sequences.
    step = min(model.batch_size, model.max_sequences)
    choices, losses = [], []
    for start in range(0, len(window) - 1, step):
        pieces = window[start : min(start + step, len(window) - 1)]
        count = len(pieces)
        positions = list(range(start, start + count))
        logits = model.decode(Batch(list(pieces), positions, [0] * count, [True] * count)).astype(np.float64)
        following = np.asarray(window[start + 1 : start + 1 + count])
        choices.append(logits.argmax(axis=1))
        losses.append(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(count), following])
    model.forget(0)
    return Scores(np.concatenate(choices), np.concatenate(losses))
