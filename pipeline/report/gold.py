"""Answers held against labels that are known to be right: accuracy, confusion, calibration."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.report.label_counts import as_labels, tally_pairs
from pipeline.report.reservoir import Reservoir
from pipeline.report.row_batch import RowBatch

RELIABILITY_BINS = 10
MOST_PAIRS = 10_000
OTHER, ANOTHER = "(other)", "(another)"
"""What rows are counted as beyond MOST_PAIRS pairs: right ones as OTHER twice."""
EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rows whose label's probability lies in one bin: their mean probability, and the share that is right."""

    rows: int
    probability: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class LabelScore:
    """gold: rows of this label. given: rows that were answered with it. right: both."""

    label: str
    gold: int
    given: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.given if self.given else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.gold + self.given) if self.gold + self.given else 0.0


@dataclass(frozen=True, slots=True)
class Miss:
    """A row that was answered wrongly. kept: its other columns that were carried along."""

    custom_id: str
    kept: dict[str, object]
    gold: str
    label: str
    probability: float | None


class Gold:
    """The column `name` of the output, kept from the input, holds the right label of each row.

    missing: rows without one. unanswered: rows with one, but without an answer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.missing = self.unanswered = 0
        self.pairs: Counter[tuple[str, str]] = Counter()
        self._rows = np.zeros(RELIABILITY_BINS, np.int64)
        self._right = np.zeros(RELIABILITY_BINS, np.int64)
        self._probability = np.zeros(RELIABILITY_BINS)
        self._squares = 0.0
        self._misses: Reservoir[Miss] = Reservoir(EXAMPLES, seed=5)

    def add(self, batch: RowBatch, labels: pa.Array, probabilities: NDArray[np.float64]) -> None:
        """labels, probabilities: of the batch's rows, as `labels_of` gives them."""
        gold = as_labels(batch.column(self.name))
        known = pc.is_valid(gold)
        self.missing += gold.null_count
        self.unanswered += int(pc.sum(pc.and_(known, pc.is_null(labels))).as_py() or 0)
        self._count(tally_pairs(gold, labels))
        judged = np.asarray(pc.and_(known, pc.is_valid(labels)))
        right = np.asarray(pc.fill_null(pc.equal(gold, labels), False))
        self._calibrate(probabilities[judged], right[judged])
        wrong = np.flatnonzero(judged & ~right)
        self._misses.offer(
            len(wrong),
            lambda index: _miss(batch, int(wrong[index]), gold, labels, probabilities, self.name),
        )

    @property
    def judged(self) -> int:
        return sum(self.pairs.values())

    @property
    def right(self) -> int:
        return sum(rows for (gold, label), rows in self.pairs.items() if gold == label)

    @property
    def accuracy(self) -> float:
        return self.right / self.judged if self.judged else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the accuracy, at 95 %."""
        n, z = self.judged, 1.96
        if not n:
            return 0.0, 1.0
        middle = (self.accuracy + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(self.accuracy * (1 - self.accuracy) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        # The interval always holds the accuracy; rounding may put a bound a last digit beyond it.
        return min(middle - half, self.accuracy), max(middle + half, self.accuracy)

    @property
    def reliability(self) -> list[Reliability]:
        """The bins that have rows, by rising probability; [] where no probabilities are known."""
        return [
            Reliability(int(rows), float(probability / rows), float(right / rows))
            for rows, probability, right in zip(self._rows, self._probability, self._right, strict=True)
            if rows
        ]

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error: the bins' mean gap between probability and accuracy, by their rows."""
        rows = int(self._rows.sum())
        gaps = sum(found.rows * abs(found.probability - found.accuracy) for found in self.reliability)
        return gaps / rows if rows else None

    @property
    def brier(self) -> float | None:
        """Mean square of the difference between the answer's probability and 1 if it is right, else 0."""
        rows = int(self._rows.sum())
        return self._squares / rows if rows else None

    @property
    def scores(self) -> list[LabelScore]:
        """Of every label that is known or was given, the commonest first."""
        gold, given = Counter[str](), Counter[str]()
        for (known, label), rows in self.pairs.items():
            gold[known] += rows
            given[label] += rows
        names = sorted(gold.keys() | given.keys(), key=lambda name: (-gold[name], -given[name], name))
        return [LabelScore(name, gold[name], given[name], self.pairs[name, name]) for name in names]

    @property
    def misses(self) -> list[Miss]:
        return self._misses.items

    def _count(self, pairs: Counter[tuple[str, str]]) -> None:
        for (gold, label), rows in pairs.items():
            pair = (gold, label)
            if pair not in self.pairs and len(self.pairs) >= MOST_PAIRS:
                pair = (OTHER, OTHER if gold == label else ANOTHER)
            self.pairs[pair] += rows

    def _calibrate(self, probabilities: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
        known = ~np.isnan(probabilities)
        shares, hits = probabilities[known], right[known]
        bins = np.minimum((shares * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
        self._rows += np.bincount(bins, minlength=RELIABILITY_BINS)
        self._right += np.bincount(bins, weights=hits, minlength=RELIABILITY_BINS).astype(np.int64)
        self._probability += np.bincount(bins, weights=shares, minlength=RELIABILITY_BINS)
        self._squares += float(((shares - hits) ** 2).sum())


def _miss(
    batch: RowBatch,
    index: int,
    gold: pa.Array,
    labels: pa.Array,
    probabilities: NDArray[np.float64],
    left_out: str,
) -> Miss:
    share, row = float(probabilities[index]), batch.record(index)
    return Miss(
        row["custom_id"],
        {name: row[name] for name in batch.kept if name != left_out},
        gold[index].as_py(),
        labels[index].as_py(),
        None if np.isnan(share) else share,
    )
