"""A sample of fixed size from rows of which nobody knows how many will come."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush, heapreplace
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Reservoir(Generic[T]):
    """At most `size` of all items that were offered; each has the same chance to be among them.

    The same seed and the same offers give the same sample.
    Each item draws a number, and the items with the smallest are kept.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.offered = 0
        self._size = size
        self._draw = np.random.default_rng(seed).random
        # The largest number first; the place breaks ties, so that items are never compared.
        self._held: list[tuple[float, int, T]] = []

    def offer(self, count: int, pick: Callable[[int], T]) -> None:
        """Offers `count` items. pick: called with the index of each one that is kept."""
        draws = self._draw(count)
        room = self._size - len(self._held)
        likely = np.flatnonzero(draws < -self._held[0][0]) if room <= 0 else range(count)
        for index in likely:
            entry = (-float(draws[index]), self.offered + int(index))
            if len(self._held) < self._size:
                heappush(self._held, (*entry, pick(int(index))))
            elif entry[0] > self._held[0][0]:
                heapreplace(self._held, (*entry, pick(int(index))))
        self.offered += count

    @property
    def items(self) -> list[T]:
        """The sample, in the order in which it was offered."""
        return [item for _, _, item in sorted(self._held, key=lambda entry: entry[1])]
