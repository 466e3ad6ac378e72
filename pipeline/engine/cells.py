"""How many cells of a unified cache are spoken for, each counted once however many sequences share it."""

from __future__ import annotations

from collections.abc import Iterable


class _Run:
    """Cells from position `start` on, decoded by one sequence. users: up to where each one holds them."""

    __slots__ = ("start", "users")

    def __init__(self, start: int) -> None:
        self.start = start
        self.users: dict[int, int] = {}

    @property
    def cells(self) -> int:
        return max(self.users.values()) - self.start


class Cells:
    """Sequences share beginnings only, so that each one's cells are a chain of runs."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._chains: dict[int, list[_Run]] = {}

    @property
    def used(self) -> int:
        return sum(run.cells for run in {run for chain in self._chains.values() for run in chain})

    def held(self, sequences: Iterable[int]) -> int:
        """Those of these sequences alone."""
        ends: dict[_Run, int] = {}
        for sequence in sequences:
            for run in self._chains.get(sequence, ()):
                ends[run] = max(ends.get(run, 0), run.users[sequence])
        return sum(end - run.start for run, end in ends.items())

    def cut(self, sequence: int, length: int) -> None:
        """`sequence` gives up its cells from position `length` on."""
        chain = self._chains.pop(sequence, [])
        ends = [run.users.pop(sequence) for run in chain]
        kept = [run for run in chain if run.start < length]
        for run, end in zip(kept, ends, strict=False):
            run.users[sequence] = min(end, length)
        if kept:
            self._chains[sequence] = kept

    def share(self, source: int, target: int, length: int) -> None:
        """`target`, which holds none, gets the first `length` cells of `source`."""
        if source == target:
            return
        chain = [run for run in self._chains.get(source, ()) if run.start < length]
        for run in chain:
            run.users[target] = min(run.users[source], length)
        if chain:
            self._chains[target] = chain

    def reserve(self, sequence: int, start: int, stop: int) -> None:
        """`sequence` will decode cells of its own from position `start` to `stop`."""
        if stop > start:
            run = _Run(start)
            run.users[sequence] = stop
            self._chains.setdefault(sequence, []).append(run)
