"""The answers of a labelling job: how often each label was given, and how sure the model was of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.report.row_batch import RowBatch

MOST_LABELS = 200
"""Texts that are more various than that are no labels."""
LONGEST_LABEL = 100
PROBABILITY_BINS = 20


@dataclass
class LabelCount:
    """sure: rows by the probability of their label, in PROBABILITY_BINS bins from 0 to 1."""

    rows: int = 0
    probability: float = 0.0
    sure: NDArray[np.int64] = field(default_factory=lambda: np.zeros(PROBABILITY_BINS, np.int64))

    @property
    def mean_probability(self) -> float | None:
        known = int(self.sure.sum())
        return self.probability / known if known else None


class LabelCounts:
    """Labels from `label_logprobs`; else from the texts, if these are few and short enough to be labels."""

    def __init__(self) -> None:
        self.scored = False
        self._counts: dict[str, LabelCount] = {}
        self._rows = 0
        self._various = False

    @property
    def counts(self) -> dict[str, LabelCount]:
        """By label, the commonest first; {} where the answers are no labels."""
        if self._various or (not self.scored and self._rows < 2 * len(self._counts)):
            return {}
        return dict(sorted(self._counts.items(), key=lambda item: (-item[1].rows, item[0])))

    def add(self, labels: pa.Array, probabilities: NDArray[np.float64]) -> None:
        """labels: null for rows without an answer. probabilities: NaN where they aren't known."""
        if self._various:
            return
        self.scored = self.scored or bool((~np.isnan(probabilities)).any())
        coded = labels.dictionary_encode()
        codes = np.asarray(coded.indices.fill_null(-1))
        for code, label in enumerate(coded.dictionary.to_pylist()):
            self._count(label, probabilities[codes == code])
        longest = max(map(len, self._counts), default=0)
        self._various = len(self._counts) > MOST_LABELS or (not self.scored and longest > LONGEST_LABEL)

    def _count(self, label: str, probabilities: NDArray[np.float64]) -> None:
        known = probabilities[~np.isnan(probabilities)]
        count = self._counts.setdefault(label, LabelCount())
        self._rows += len(probabilities)
        count.rows += len(probabilities)
        count.probability += float(known.sum())
        count.sure += np.histogram(known, PROBABILITY_BINS, (0, 1))[0]


def labels_of(batch: RowBatch) -> tuple[pa.Array, NDArray[np.float64]]:
    """Each row's label and its probability: the answer's text, without blanks around it, where that is one of
    the row's labels; else the likeliest of them; else the text alone."""
    texts = _texts(batch)
    unknown = np.full(len(batch), np.nan)
    if not batch.has("label_logprobs"):
        return texts, unknown
    lists = batch.column("label_logprobs")
    rows, flat = np.asarray(pc.list_parent_indices(lists)), pc.list_flatten(lists)
    if not len(rows):
        return texts, unknown
    names, shares = pc.struct_field(flat, "label"), np.asarray(pc.struct_field(flat, "probability"))
    said = np.asarray(pc.fill_null(pc.equal(names, texts.take(rows)), False))
    # Of each row's labels the one that was said comes first, else the likeliest.
    order = np.lexsort((-shares, ~said, rows))
    labelled, first = np.unique(rows[order], return_index=True)
    chosen = order[first]
    unknown[labelled] = shares[chosen]
    places = np.full(len(batch), -1)
    places[labelled] = chosen
    best = names.take(pa.array(places, mask=places < 0))
    return pc.if_else(
        pa.array(batch.answered), pc.coalesce(best, texts), pa.scalar(None, pa.string())
    ), unknown


def _texts(batch: RowBatch) -> pa.Array:
    if not batch.has("text"):
        return pa.nulls(len(batch), pa.string())
    trimmed = pc.utf8_trim_whitespace(batch.column("text"))
    return pc.if_else(pa.array(batch.answered), trimmed, pa.scalar(None, pa.string()))


def tally_pairs(left: pa.Array, right: pa.Array) -> Counter[tuple[str, str]]:
    """How often each pair of values stands in one row; rows in which one is null are left out."""
    table = pa.table({"left": left, "right": right}).drop_null()
    grouped = table.group_by(["left", "right"], use_threads=False).aggregate([([], "count_all")])
    return Counter(
        {(row["left"], row["right"]): row["count_all"] for row in grouped.to_pylist()},
    )
