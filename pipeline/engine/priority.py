"""Who comes first where several wait for the engine, and how long anybody waits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Priority(IntEnum):
    """INTERACTIVE: somebody waits for the answer. BATCH: a job's rows, which take what is left."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds after which a row becomes `deadline_exceeded`. running: since it got a slot.
    waiting: without a slot, since it was queued; for interactive rows."""

    running: float = float("inf")
    waiting: float = float("inf")
