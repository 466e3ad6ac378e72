"""A worker's life signs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Pulse:
    """Tokens and rows since the worker's start; running and waiting rows now. `a + b` is that of both.

    interactive: of those that wait, the rows that somebody waits for.
    full_seconds, full_tokens, last_seconds, last_tokens, held_cells: as the engine's counters.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rows: int = 0
    running: int = 0
    waiting: int = 0
    interactive: int = 0
    full_seconds: float = 0.0
    full_tokens: int = 0
    last_seconds: float = 0.0
    last_tokens: int = 0
    held_cells: float = 0.0

    def __add__(self, other: Pulse) -> Pulse:
        return Pulse(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def at_rest(self) -> Pulse:
        """What stays of it when the worker is gone."""
        return replace(self, running=0, waiting=0, held_cells=0.0)
