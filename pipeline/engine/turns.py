"""Whose turn it is where shares of the slots leave somebody out: with a single slot, or few cells."""

from __future__ import annotations

from pipeline.engine.priority import Priority
from pipeline.engine.waiting import Waiting

PATIENCE = 8
"""So many rows of one priority may pass a row of the other one that waits at the head of its queue."""


class Turns:
    """Counts the rows that pass the head of each queue."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._passed = dict.fromkeys(Priority, 0)

    def note(self, admitted: Priority) -> None:
        """A row of this priority got a slot."""
        for priority in Priority:
            waits = priority is not admitted and self._waiting.of(priority)
            self._passed[priority] = self._passed[priority] + 1 if waits else 0

    def is_due(self, priority: Priority) -> bool:
        """Whether the head of the queue has waited long enough."""
        return bool(self._waiting.of(priority)) and self._passed[priority] >= PATIENCE
