"""The probability of every label, from as few of the model's decisions as tell them apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """Where labels part. path: the tokens that they have in common so far. branches: the tokens that lead
    on, each with the labels behind it; the tokens that end an answer stand for a label that ends here."""

    path: Tokens
    branches: tuple[tuple[Tokens, Tokens], ...]

    @property
    def tokens(self) -> Tokens:
        """The tokens whose log-probabilities after `path` are needed."""
        return tuple(token for tokens, _ in self.branches for token in tokens)


class LabelTree:
    """The tree of a row's labels over tokens."""

    def __init__(self, texts: Mapping[str, str], tokenize: Callable[[str], Sequence[int]], ends: Tokens):
        """texts: how each label stands in an answer. ends: the tokens that end an answer."""
        self.labels = tuple(texts)
        self._ends = ends
        self.forks = tuple(self._forks([tuple(tokenize(text)) for text in texts.values()]))

    def logprobs(self, scores: Sequence[Sequence[float]]) -> dict[str, float]:
        """The natural-log probability of each label among the labels: what sampling within them at
        temperature 1 would draw. scores: of each fork, the log-probabilities of its tokens."""
        totals = [0.0] * len(self.labels)
        for fork, found in zip(self.forks, scores, strict=True):
            values = iter(found)
            weights = [_log_sum([next(values) for _ in tokens]) for tokens, _ in fork.branches]
            whole = _log_sum(weights)
            for (_, labels), weight in zip(fork.branches, weights, strict=True):
                for label in labels:
                    totals[label] += weight - whole
        return dict(zip(self.labels, totals, strict=True))

    def _forks(self, tokens: Sequence[Tokens]) -> Iterator[Fork]:
        pending: list[tuple[Tokens, Tokens]] = [((), tuple(range(len(tokens))))] if len(tokens) > 1 else []
        while pending:
            path, labels = pending.pop()
            branches: dict[Tokens, Tokens] = {}
            for label in labels:
                following = tokens[label][len(path) : len(path) + 1] or self._ends
                branches[following] = (*branches.get(following, ()), label)
            if len(branches) > 1:
                yield Fork(path, tuple(branches.items()))
            pending += [(path + token, behind) for token, behind in branches.items() if len(behind) > 1]


def _log_sum(values: Sequence[float]) -> float:
    peak = max(values)
    return peak + math.log(sum(math.exp(value - peak) for value in values))
