"""A choice among labels in the making: which logits it needs next, until one label is the best for sure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.label_draw import LabelDraw
from pipeline.engine.sampling.labels import Element, Labels, Path, Tokens
from pipeline.errors import RowError

Judged = dict[Path, dict[Element, float]]


@dataclass(frozen=True, slots=True)
class Decision:
    """place, names: of the labels, as in `Labels`. scores: of all labels, where they were asked for, else ().
    chosen: the label that the text goes on with."""

    place: str | None
    names: tuple[str, ...]
    scores: tuple[float, ...]
    chosen: int


class Deciding:
    """Looks at the label that could be the best, further and further, until it is.

    A label's score only falls with each of its tokens, so that one which is wholly known and not below what
    any other has left is the best of all. With `every`, all labels are looked at to their ends.
    """

    def __init__(self, labels: Labels, draw: LabelDraw, *, every: bool, judged: Judged | None = None) -> None:
        """judged: what is known of the places already, to which this adds; another row's, where both
        have said the same so far."""
        self.labels = labels
        self.judged: Judged = {} if judged is None else judged
        self._draw = draw
        self._every, self._complete = every, every or draw.needs_all
        self._noise = draw.noise(len(labels.names))
        self._known = [0] * len(labels.names)  # elements of each label that are in its score
        self._scores = [0.0] * len(labels.names)
        self._pending = iter(labels.order)
        self._current = next(self._pending)
        self._path: Path = ()
        self._chosen = -1
        self._look()

    @property
    def done(self) -> bool:
        return self._chosen >= 0

    @property
    def path(self) -> Tokens:
        """The tokens, behind the text, after which logits are wanted."""
        return tuple(token for token in self._path if isinstance(token, int))

    @property
    def decision(self) -> Decision:
        scores = tuple(self._scores) if self._every else ()
        return Decision(self.labels.place, self.labels.names, scores, self._chosen)

    def take(self, logits: NDArray[np.float32]) -> None:
        """logits: those after `path`, shape [vocabulary]. Raises RowError where no label can be chosen."""
        self.judged[self._path] = self.labels.judge(self._path, logits)
        self._look()

    def _look(self) -> None:
        while (label := self._next()) is not None:
            self._path = self.labels.elements[label][: self._known[label]]
            if self._path not in self.judged:
                return
            self._read(self._path)
        self._choose()

    def _next(self) -> int | None:
        """The label to look at further; None where none has to be."""
        if not self._complete:
            best = self._best(range(len(self._scores)))
            return None if self._is_known(best) else best
        while self._is_known(self._current):
            following = next(self._pending, None)
            if following is None:
                return None
            self._current = following
        return self._current

    def _read(self, path: Path) -> None:
        found = self._draw.biased(self.judged[path])
        for label in self.labels.behind[path]:
            self._scores[label] += found[self.labels.elements[label][len(path)]]
            self._known[label] += 1

    def _choose(self) -> None:
        best = self._best(self._draw.kept(self._scores) if self._complete else range(len(self._scores)))
        if self._scores[best] == -math.inf:
            raise RowError("invalid_request", "logit_bias bans every label of the row", "logit_bias")
        self._chosen = best

    def _best(self, labels: range | list[int]) -> int:
        return max(labels, key=lambda label: self._draw.rank(self._scores[label], self._noise[label]))

    def _is_known(self, label: int) -> bool:
        return self._known[label] == len(self.labels.elements[label])
