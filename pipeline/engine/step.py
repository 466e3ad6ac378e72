"""What one decode call holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pipeline.engine.model import Batch
from pipeline.engine.sequence import Sequence, State


@dataclass(frozen=True, slots=True)
class Piece:
    """`count` pending tokens of a row. wants: after how many of them, the last ones, logits are wanted.
    spare: after how many more, the ones before, they are computed and not read."""

    row: Sequence
    count: int
    wants: int = 0
    spare: int = 0

    @classmethod
    def of(cls, row: Sequence, room: int) -> Piece:
        """The row's next tokens, at most `room`, and the logits that it needs after them."""
        left = row.length - row.filled
        if row.echo and row.state is State.PREFILL:
            return cls(row, min(room, left), min(room, left))
        return cls(row, min(room, left), int(room >= left))

    @property
    def samples(self) -> bool:
        """The row's next token is sampled after it."""
        return self.row.filled + self.count == self.row.length

    @property
    def outputs(self) -> int:
        return self.wants + self.spare

    def with_outputs(self, more: int) -> Piece:
        return replace(self, spare=self.spare + more)

    def add_to(self, batch: Batch) -> None:
        batch.add(self.row.slot, self.row.filled, self.row.pending(self.count), self.outputs)


@dataclass(frozen=True, slots=True)
class Filler:
    """`count` throw-away tokens of a sequence, from `position` on. outputs: logits, that nobody reads."""

    slot: int
    position: int
    count: int
    outputs: int = 0

    def with_outputs(self, more: int) -> Filler:
        return replace(self, outputs=self.outputs + more)

    def add_to(self, batch: Batch) -> None:
        batch.add(self.slot, self.position, [0] * self.count, self.outputs)


@dataclass(slots=True)
class Step:
    """One decode call, in the order of its batch."""

    parts: list[Piece | Filler] = field(default_factory=list)

    @property
    def fillers(self) -> list[Filler]:
        return [part for part in self.parts if isinstance(part, Filler)]

    def half(self) -> Step | None:
        """The first half of a step without fillers, None where nothing smaller is left."""
        if len(self.parts) > 1:
            return Step(self.parts[: len(self.parts) // 2])
        first = self.parts[0]
        count = first.count // 2
        if not count or isinstance(first, Filler):
            return None
        return Step([Piece(first.row, count, count if first.row.echo else 0)])

    def batch(self) -> Batch:
        batch = Batch([], [], [], [])
        for part in self.parts:
            part.add_to(batch)
        return batch
