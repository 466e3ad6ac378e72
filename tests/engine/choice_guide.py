"""A guide for tests: the answer is one of a few byte strings, a token a byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.engine.sampling.labels import Labels


def labels_of(choices: tuple[bytes, ...]) -> Labels:
    """The end is part of a choice with which another begins."""
    begins = [any(other != one and other.startswith(one) for other in choices) for one in choices]
    return Labels(
        None,
        tuple(choice.decode("latin-1") for choice in choices),
        tuple(map(tuple, choices)),
        tuple(FakeVocabulary.end_tokens if begin else () for begin in begins),
    )


class ChoiceGuide:
    """labels: of the choices, where they are decided as a whole."""

    def __init__(self, choices: tuple[bytes, ...], said: bytes = b"", labels: Labels | None = None) -> None:
        self._choices, self._said, self._labels = choices, said, labels

    def mask(self, logits: NDArray[np.float32]) -> None:
        allowed = list(self._following())
        if self.complete:
            allowed += FakeVocabulary.end_tokens
        kept = logits[allowed].copy()
        logits[:] = -np.inf
        logits[allowed] = kept

    def spells(self, token: int) -> bool:
        return True

    def accept(self, token: int) -> None:
        assert token in self._following(), f"{token} after {self._said!r}"
        self._said += bytes([token])

    def forced(self) -> list[int]:
        ahead = b""
        while True:
            guide = ChoiceGuide(self._choices, self._said + ahead)
            following = guide._following()
            if len(following) != 1 or guide.complete or (self._labels and not ahead and not self._said):
                return list(ahead)
            ahead += bytes(following)

    def labels(self) -> Labels | None:
        return None if self._said else self._labels

    def choose(self, label: int) -> None:
        self._choices, self._labels = (self._choices[label],), None

    @property
    def done(self) -> bool:
        return self.complete and not self._following()

    @property
    def complete(self) -> bool:
        return self._said in self._choices

    def copy(self) -> ChoiceGuide:
        return ChoiceGuide(self._choices, self._said, self._labels)

    def _following(self) -> set[int]:
        at = len(self._said)
        return {c[at] for c in self._choices if c.startswith(self._said) and len(c) > at}
