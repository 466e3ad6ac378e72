"""What lies in the cells of one sequence, from which other rows take what they share with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sequence import Sequence

# Below this, taking cells over costs as much as decoding them.
SHORTEST_SHARE = 16
# A reproducible prompt is decoded in pieces that end at fixed places, so that whoever shares a beginning
# has decoded it in the same calls: where a turn's text begins, and at the latest after so many tokens.
LONGEST_PIECE = 64
SHORTEST_PIECE = 16
LAST_PIECE = 8  # at least so many tokens
# Tokens between the control token that ends a turn and the next one's text, in the usual templates
# ("\n<|im_start|>user\n", "<|start_header_id|>user<|end_header_id|>\n\n").
TURN_HEADER = 4


@dataclass(slots=True, eq=False)
class Slot:
    """row: who generates in it. tokens: the beginning of that row, or of the last one that did.
    kept: the cells of `tokens` that it still holds while nobody uses it."""

    id: int
    row: Sequence | None = None
    tokens: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    kept: int = 0

    @property
    def ready(self) -> int:
        """Cells of `tokens` that are decoded."""
        return min(self.row.filled, len(self.tokens)) if self.row else self.kept

    @property
    def promised(self) -> int:
        """Cells of `tokens` that are decoded or will be."""
        return len(self.tokens) if self.row else self.kept

    def common(self, tokens: NDArray[np.int32]) -> int:
        """How many of `tokens` lie in its cells, or will."""
        size = min(len(tokens), self.promised)
        different = np.flatnonzero(self.tokens[:size] != tokens[:size])
        return int(different[0]) if len(different) else size


@dataclass(frozen=True, slots=True)
class Share:
    """`length` cells that a row waits for, and the beginning in `slot` that they belong to."""

    slot: Slot
    tokens: NDArray[np.int32]
    length: int

    @property
    def lost(self) -> bool:
        """Whoever was to decode them has left too early."""
        return self.slot.tokens is not self.tokens or self.slot.promised < self.length

    @property
    def ready(self) -> bool:
        return not self.lost and self.slot.ready >= self.length


def cuts(tokens: list[int], control: frozenset[int]) -> tuple[int, ...]:
    """Where the pieces of a reproducible prompt end, ascending; its own end is not among them.

    Each place depends on nothing but the tokens before it. control: the ids of control tokens.
    """
    places, last, turn = [], 0, 0
    for at, token in enumerate(tokens[: len(tokens) - LAST_PIECE], 1):
        if not turn and token in control and at - last >= SHORTEST_PIECE:
            turn = at + TURN_HEADER
        if at == turn or (not turn and at - last >= LONGEST_PIECE):
            places.append(at)
            last, turn = at, 0
    return tuple(places)
