"""What one decode call holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter

from pipeline.engine.model import Batch
from pipeline.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` pending tokens of a row. wants: after how many of them, the last ones, logits are wanted."""

    row: Sequence
    count: int
    wants: int = 0

    @property
    def samples(self) -> bool:
        """The row's next token is sampled after it."""
        return self.row.filled + self.count == self.row.length


@dataclass(slots=True)
class Step:
    """One decode call. dummies: free sequences that get a throw-away token, and its position."""

    pieces: list[Piece] = field(default_factory=list)
    dummies: list[tuple[int, int]] = field(default_factory=list)

    def half(self) -> Step | None:
        """The first half of the step, None where nothing smaller is left."""
        if len(self.pieces) > 1:
            return Step(self.pieces[: len(self.pieces) // 2])
        row, count = self.pieces[0].row, self.pieces[0].count // 2
        return Step([Piece(row, count, count if row.echo else 0)]) if count else None

    def batch(self) -> Batch:
        """The step's tokens by ascending sequence id, the order that split streams need."""
        batch = Batch([], [], [], [])
        parts: list[tuple[int, int, Piece | None]] = [(p.row.slot, p.row.filled, p) for p in self.pieces]
        parts += [(slot, position, None) for slot, position in self.dummies]
        for slot, position, piece in sorted(parts, key=itemgetter(0)) if self.dummies else parts:
            tokens, wants = (piece.row.pending(piece.count), piece.wants) if piece else ([0], 0)
            batch.add(slot, position, tokens, wants)
        return batch
