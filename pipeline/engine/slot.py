"""What lies in the cells of one sequence, from which other rows take what they share with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sequence import Sequence

# Below this, taking cells over costs as much as decoding them.
SHORTEST_SHARE = 16


@dataclass(slots=True, eq=False)
class Slot:
    """row: who generates in it. tokens, blocks: the beginning of that row, or of the last one that did.
    kept: the cells of `tokens` that it still holds while nobody uses it."""

    id: int
    row: Sequence | None = None
    tokens: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    blocks: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    kept: int = 0

    @property
    def ready(self) -> int:
        """Cells of `tokens` that are decoded."""
        return min(self.row.filled, len(self.tokens)) if self.row else self.kept

    @property
    def promised(self) -> int:
        """Cells of `tokens` that are decoded or will be."""
        return len(self.tokens) if self.row else self.kept

    @property
    def cells(self) -> int:
        """Cells that are decoded, those of the answer too."""
        return self.row.filled if self.row else self.kept

    def take(self, row: Sequence) -> None:
        self.row, self.tokens, self.blocks = row, row.beginning, row.blocks

    def common(self, row: Sequence) -> int:
        """How many tokens of the row's beginning lie in its cells, or will, computed as the row would."""
        size = min(len(row.beginning), self.promised)
        same = (self.tokens[:size] == row.beginning[:size]) & (self.blocks[:size] == row.blocks[:size])
        return size if same.all() else int(same.argmin())


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
