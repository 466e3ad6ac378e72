"""What the engine asks of a constraint on a row's text."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.labels import Labels


class Guide(Protocol):
    """What one row may still say, token by token. RowError is raised where it can't be followed further."""

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Sets to -inf what may not come next (end-of-generation tokens included, where the text may not
        end here)."""

    def spells(self, token: int) -> bool:
        """Whether the model's tokenizer would write the text with this token next; `mask` allowed it."""

    def accept(self, token: int) -> None:
        """Takes the next token, one that `mask` allowed, or a forced one."""

    def forced(self) -> list[int]:
        """The tokens that must come next, none of them accepted yet; [] where there is a choice."""

    def labels(self) -> Labels | None:
        """The labels of which one comes next, where the text goes on with one of a few; None elsewhere, and
        where tokens are forced. Each has at least one token, or an end."""

    def choose(self, label: int) -> None:
        """Of `labels`, the text goes on with this one: its tokens are forced."""

    @property
    def done(self) -> bool:
        """Nothing but the end may follow."""

    @property
    def complete(self) -> bool:
        """What was accepted so far is a whole, valid answer."""

    def copy(self) -> Guide:
        """An independent guide in the same state."""
