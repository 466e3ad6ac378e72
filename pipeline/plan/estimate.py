"""Numbers of a whole job from some of its rows, each with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.plan.try_out import SEED

LEVEL = 0.9
"""How likely a number is within its interval, as far as the sample's choice decides."""
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and the interval around it."""

    value: float
    low: float
    high: float

    @classmethod
    def known(cls, value: float) -> Estimate:
        """A number that was counted."""
        return cls(value, value, value)

    def scaled(self, factor: float) -> Estimate:
        return Estimate(*(factor * number for number in (self.value, self.low, self.high)))

    def plus(self, number: float) -> Estimate:
        return Estimate(self.value + number, self.low + number, self.high + number)

    def wider(self, share: float) -> Estimate:
        """The interval moved outwards by a share of its ends."""
        return Estimate(self.value, self.low * (1 - share), self.high * (1 + share))

    def holds(self, number: float) -> bool:
        return self.low <= number <= self.high

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Estimate:
        return cls(record["value"], record["low"], record["high"])


class Bootstrap:
    """Means by row, over blocks of rows that were drawn at random: whole blocks are drawn again and again.

    Rows that stand together in the input are often alike, so a block is the unit, not a row.
    """

    def __init__(self, rows: NDArray[np.float64]) -> None:
        """rows: of each block."""
        chance = np.random.default_rng(SEED)
        self._rows = rows
        self._draws = chance.integers(len(rows), size=(_DRAWS, len(rows)))
        self._drawn_rows = rows[self._draws].sum(axis=1)

    def per_row(self, amounts: NDArray[np.float64]) -> Estimate:
        """amounts: of each block, of what is asked for."""
        return self._estimate(amounts.sum() / self._rows.sum(), amounts, self._drawn_rows)

    def ratio(self, part: NDArray[np.float64], whole: NDArray[np.float64]) -> Estimate:
        """What share of `whole` is `part`; both of each block. 0 where there is nothing at all."""
        share = part.sum() / whole.sum() if whole.sum() else 0.0
        return self._estimate(share, part, whole[self._draws].sum(axis=1))

    def _estimate(self, value: float, amounts: NDArray[np.float64], drawn: NDArray[np.float64]) -> Estimate:
        found = amounts[self._draws].sum(axis=1) / np.maximum(drawn, 1e-12)
        low, high = np.quantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        return Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))
