"""How a number is spread over all rows, from a bounded sample of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.report.reservoir import Reservoir

SAMPLE = 20_000
"""Values that quantiles and histograms are made from; count, mean, least and most are of all."""


class Spread:
    """NaN stands for a row that has no such number, and is left out."""

    def __init__(self, seed: int = 0) -> None:
        self.count = 0
        self.total = 0.0
        self.least = np.inf
        self.most = -np.inf
        self._sample: Reservoir[float] = Reservoir(SAMPLE, seed)

    def add(self, values: NDArray[np.float64]) -> None:
        known = values[~np.isnan(values)]
        if not len(known):
            return
        self.count += len(known)
        self.total += float(known.sum())
        self.least = min(self.least, float(known.min()))
        self.most = max(self.most, float(known.max()))
        self._sample.offer(len(known), lambda index: float(known[index]))

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @property
    def sample(self) -> NDArray[np.float64]:
        return np.array(self._sample.items)

    @property
    def sampled(self) -> bool:
        """Whether there are more values than the sample holds."""
        return self.count > SAMPLE

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.sample, share)) if self.count else 0.0
