"""Labels: the few ways in which a text may go on at some place, each as the tokens that the model would use.

A label's score is the natural log of the probability that the model gives to all of its tokens, one after
the other: the sum of log p(token | what comes before it). Where one label begins another, its end is part of
it: one more factor, the probability that the label is over. Among the labels,

    P(label) = exp(score of the label) / sum of exp(score) over all labels,

normalised once over whole labels. Source: language models as scorers of answers, as in EleutherAI's
lm-evaluation-harness (multiple choice).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.logprobs import log_sum
from pipeline.errors import RowError

Tokens = tuple[int, ...]
Element = int | Tokens
"""A token of a label; or, at its end, the tokens of which any one tells that it is over."""
Path = tuple[Element, ...]


@dataclass(frozen=True)
class Labels:
    """The labels of one place of a text; a single one leaves nothing to decide.

    place: its name; None where a label is the whole answer.
    names: what each label says.
    tokens: those of each label.
    ends: for each, the tokens of which one comes next where its end is part of it; () where it isn't.
    """

    place: str | None
    names: tuple[str, ...]
    tokens: tuple[Tokens, ...]
    ends: tuple[Tokens, ...]

    @cached_property
    def elements(self) -> tuple[Path, ...]:
        """What each label's score is a sum over."""
        return tuple((*t, e) if e else t for t, e in zip(self.tokens, self.ends, strict=True))

    @cached_property
    def behind(self) -> Mapping[Path, tuple[int, ...]]:
        """For each place at which logits may be wanted, the labels that pass it."""
        found: dict[Path, list[int]] = {}
        for label, elements in enumerate(self.elements):
            for size in range(len(elements)):
                found.setdefault(elements[:size], []).append(label)
        return {path: tuple(labels) for path, labels in found.items()}

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The labels in an order in which those that begin alike are neighbours."""
        return tuple(sorted(range(len(self.names)), key=lambda label: [*map(_rank, self.elements[label])]))

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest label."""
        return max(map(len, self.tokens))

    def judge(self, path: Path, logits: NDArray[np.float32]) -> dict[Element, float]:
        """The log-probability of each element that some label has after `path`. logits: those after `path`,
        shape [vocabulary]. Raises RowError where they are no finite numbers."""
        total = log_sum(logits)
        if not math.isfinite(total):
            raise RowError("server_error", "the model gave logits that are not finite numbers")
        size = len(path)
        wanted = {self.elements[label][size] for label in self.behind[path]}
        return {element: _logprob(logits, element, total) for element in wanted}


def log_shares(scores: Sequence[float]) -> list[float]:
    """The log-probability of each label among the labels, from their scores; equal where all are -inf."""
    peak = max(scores)
    if peak == -math.inf:
        return [-math.log(len(scores))] * len(scores)
    total = peak + math.log(sum(math.exp(score - peak) for score in scores))
    return [score - total for score in scores]


def _rank(element: Element) -> tuple[int, Tokens]:
    return (1, element) if isinstance(element, tuple) else (0, (element,))


def _logprob(logits: NDArray[np.float32], element: Element, total: float) -> float:
    if isinstance(element, tuple):
        return float(np.logaddexp.reduce(logits[list(element)].astype(np.float64))) - total
    return float(logits[element]) - total
