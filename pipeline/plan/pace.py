"""How fast one worker answered a sample, and what that means for all workers and all rows."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.job.backlog import FEWEST_ROWS
from pipeline.pulse import Pulse

_FEWEST_TOKENS = 64
"""Tokens that have to be generated with full slots, before their pace says anything."""
_LONGEST_END = 0.3
"""Share of the sample's time that its end may have cost, at most."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured. Seconds.

    start: from the command's begin to the first worker that is ready, what only the first rows cost included.
    seconds: in which one worker answered `rows` rows.
    token_seconds: of a generated token while every slot is taken; 0 where unknown.
    end: what of `seconds` was lost as the last rows left slots empty.
    """

    start: float
    rows: int
    seconds: float
    token_seconds: float = 0.0
    end: float = 0.0

    @classmethod
    def of(cls, start: float, rows: int, seconds: float, before: Pulse, after: Pulse) -> Pace:
        """before, after: the worker's life signs around the sample."""
        tokens = after.full_tokens - before.full_tokens
        if tokens < _FEWEST_TOKENS:
            return cls(start, rows, seconds)
        each = (after.full_seconds - before.full_seconds) / tokens
        last = after.last_seconds - before.last_seconds
        end = last - each * (after.last_tokens - before.last_tokens)
        return cls(start, rows, seconds, each, min(max(0.0, end), _LONGEST_END * seconds))

    @property
    def row_seconds(self) -> float:
        """Of one row on one worker, while there are rows enough for all its slots."""
        return (self.seconds - self.end) / self.rows if self.rows else 0.0

    def once(self, workers: int) -> float:
        """Seconds that do not grow with the rows: the start, and the end, when some workers are idle."""
        idle = FEWEST_ROWS / 2 * self.row_seconds if workers > 1 else 0.0
        return self.start + self.end + idle
