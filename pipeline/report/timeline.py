"""What was answered when, in bins that grow wider as the time grows longer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MOST_BINS = 240
PAUSE_MINUTES = 10
"""So many minutes without any answer count as a pause of the job."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Sums over the seconds [start, start + width) since 1970, UTC."""

    start: int
    rows: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: Bin) -> Bin:
        return Bin(
            min(self.start, other.start),
            self.rows + other.rows,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
        )


@dataclass(frozen=True, slots=True)
class Pause:
    """Whole minutes without any answer, in seconds since 1970."""

    start: int
    stop: int

    @property
    def seconds(self) -> int:
        return self.stop - self.start


class Timeline:
    """Rows come in any order. At most MOST_BINS bins are held, each `width` seconds wide."""

    def __init__(self) -> None:
        self.width = 1
        self.first: int | None = None
        self.last = 0
        self._bins: dict[int, Bin] = {}
        # The minutes in which something was answered; half a million of them make a year.
        self._minutes: set[int] = set()

    def add(
        self, seconds: NDArray[np.int64], tokens_in: NDArray[np.int64], tokens_out: NDArray[np.int64]
    ) -> None:
        """One entry for each row, all arrays of one length. seconds: since 1970."""
        if not len(seconds):
            return
        places, rows = np.unique(seconds, return_inverse=True)
        counts = np.bincount(rows)
        sums = [np.bincount(rows, weights=weights) for weights in (tokens_in, tokens_out)]
        self.first = min(int(places[0]), places[0] if self.first is None else self.first)
        self.last = max(int(places[-1]), self.last)
        for place, count, into, out in zip(places.tolist(), counts.tolist(), *sums, strict=True):
            self._put(Bin(place, count, int(into), int(out)))
        self._minutes.update((places // 60).tolist())
        self._widen()

    @property
    def bins(self) -> list[Bin]:
        """All of them, in order, the empty ones too."""
        if self.first is None:
            return []
        numbers = range(self.first // self.width, self.last // self.width + 1)
        return [self._bins.get(number, Bin(number * self.width)) for number in numbers]

    @property
    def pauses(self) -> list[Pause]:
        """The stretches in which nothing was answered, in order: the job was stopped, or had no worker."""
        minutes = pairwise(sorted(self._minutes))
        return [
            Pause(60 * (before + 1), 60 * after)
            for before, after in minutes
            if after - before > PAUSE_MINUTES
        ]

    def _put(self, found: Bin) -> None:
        number = found.start // self.width
        placed = Bin(number * self.width, found.rows, found.tokens_in, found.tokens_out)
        self._bins[number] = self._bins[number] + placed if number in self._bins else placed

    def _widen(self) -> None:
        assert self.first is not None
        while self.last // self.width - self.first // self.width >= MOST_BINS:
            self.width *= 2
            before, self._bins = self._bins, {}
            for found in before.values():
                self._put(found)
