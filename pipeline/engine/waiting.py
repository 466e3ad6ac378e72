"""The rows that wait for a slot."""

from __future__ import annotations

from collections import deque

from pipeline.engine.priority import Priority
from pipeline.engine.sequence import Sequence


class Waiting:
    """A queue for each priority."""

    def __init__(self) -> None:
        self._queues: dict[Priority, deque[Sequence]] = {priority: deque() for priority in Priority}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def of(self, priority: Priority) -> deque[Sequence]:
        """The rows of one priority, in order."""
        return self._queues[priority]

    def append(self, row: Sequence) -> None:
        self._queues[row.priority].append(row)

    def appendleft(self, row: Sequence) -> None:
        self._queues[row.priority].appendleft(row)

    def remove(self, row: Sequence) -> None:
        self._queues[row.priority].remove(row)
