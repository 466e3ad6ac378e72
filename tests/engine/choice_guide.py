"""A guide for tests: the answer is one of a few byte strings, a token a byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.fake import FakeVocabulary


class ChoiceGuide:
    def __init__(self, choices: tuple[bytes, ...], said: bytes = b"") -> None:
        self._choices, self._said = choices, said

    def mask(self, logits: NDArray[np.float32]) -> None:
        allowed = list(self._following())
        if self.complete:
            allowed += FakeVocabulary.end_tokens
        kept = logits[allowed].copy()
        logits[:] = -np.inf
        logits[allowed] = kept

    def accept(self, token: int) -> None:
        assert token in self._following(), f"{token} after {self._said!r}"
        self._said += bytes([token])

    def forced(self) -> list[int]:
        ahead = b""
        while True:
            guide = ChoiceGuide(self._choices, self._said + ahead)
            following = guide._following()
            if len(following) != 1 or guide.complete:
                return list(ahead)
            ahead += bytes(following)

    @property
    def done(self) -> bool:
        return self.complete and not self._following()

    @property
    def complete(self) -> bool:
        return self._said in self._choices

    def copy(self) -> ChoiceGuide:
        return ChoiceGuide(self._choices, self._said)

    def _following(self) -> set[int]:
        at = len(self._said)
        return {c[at] for c in self._choices if c.startswith(self._said) and len(c) > at}
