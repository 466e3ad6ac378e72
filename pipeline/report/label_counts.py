"""The answers of a labelling job: how often each label was given, and how sure the model was of it."""

from __future__ import annotations

import re
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
MOST_FIELDS = 8
"""The most fields of a struct that are shown."""
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


def label_fields(batch: RowBatch) -> list[str]:
    """Where the answers have labels: the enums and booleans of a struct; [""] means the whole answer."""
    fields = _struct_fields(batch)
    return [name for name, kind in fields.items() if _is_label(kind)][:MOST_FIELDS] or [""]


def labels_of(batch: RowBatch, field: str = "") -> tuple[pa.Array, NDArray[np.float64]]:
    """Each row's label and its probability; null and NaN where there is none.

    field: of the answer's struct; "" for the whole answer.
    What was answered counts, without blanks around it, where it is one of the row's labels; else the
    likeliest of them; else what was answered alone.
    """
    answers = _answers(batch, field)
    unknown = np.full(len(batch), np.nan)
    rows, names, shares = _scored(batch, field)
    if not len(rows):
        return answers, unknown
    said = np.asarray(pc.fill_null(pc.equal(names, answers.take(pa.array(rows))), False))
    # Of each row's labels the one that was said comes first, else the likeliest.
    order = np.lexsort((-shares, ~said, rows))
    labelled, first = np.unique(rows[order], return_index=True)
    chosen = order[first]
    unknown[labelled] = shares[chosen]
    places = np.full(len(batch), -1)
    places[labelled] = chosen
    best = names.take(pa.array(places, mask=places < 0))
    return _where_answered(batch, pc.coalesce(best, answers)), unknown


def as_labels(column: pa.Array) -> pa.Array:
    """Values as the texts that a model would answer with: 3 and 3.0 are "3", true is "true"."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_floating(column.type):
        return pa.array([None if v is None else f"{v:g}" for v in column.to_pylist()], pa.string())
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _answers(batch: RowBatch, field: str) -> pa.Array:
    if field and field in _struct_fields(batch):
        return as_labels(pc.struct_field(batch.column("parsed"), [field]))
    if not batch.has("text"):
        return pa.nulls(len(batch), pa.string())
    return _where_answered(batch, pc.utf8_trim_whitespace(batch.column("text")))


def _scored(batch: RowBatch, field: str) -> tuple[NDArray[np.int64], pa.Array, NDArray[np.float64]]:
    """The rows' labels, one after the other: the row of each, its name, and its probability."""
    if not batch.has("label_logprobs"):
        return np.empty(0, np.int64), pa.array([], pa.string()), np.empty(0)
    lists = batch.column("label_logprobs")
    rows, flat = np.asarray(pc.list_parent_indices(lists)), pc.list_flatten(lists)
    names, shares = pc.struct_field(flat, "label"), np.asarray(pc.struct_field(flat, "probability"))
    if "path" not in [inner.name for inner in flat.type]:
        return rows, names, shares
    own = _of_one_path(rows, pc.struct_field(flat, "path"), field)
    return rows[own], names.filter(pa.array(own)), shares[own]


def _of_one_path(rows: NDArray[np.int64], paths: pa.Array, field: str) -> NDArray[np.bool_]:
    """Which labels to take where an answer has several: those of `field`, or without one the row's first."""
    coded = paths.fill_null("").dictionary_encode()
    codes, known = np.asarray(coded.indices), coded.dictionary.to_pylist()
    if field:
        wanted = [path == "" or re.split(r"[./]", path)[-1] == field for path in known]
        return np.array(wanted, bool)[codes] if known else np.zeros(0, bool)
    starts, place = np.unique(rows, return_index=True)
    first = np.zeros(int(starts[-1]) + 1 if len(starts) else 0, codes.dtype)
    first[starts] = codes[place]
    return np.asarray(codes == first[rows], bool)


def _struct_fields(batch: RowBatch) -> dict[str, pa.DataType]:
    """The fields of the answers, where the column `parsed` is a struct."""
    kind = batch.table.schema.field("parsed").type if batch.has("parsed") else None
    return {inner.name: inner.type for inner in kind} if kind and pa.types.is_struct(kind) else {}


def _is_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) or pa.types.is_boolean(kind))


def _where_answered(batch: RowBatch, labels: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(batch.answered), labels, pa.scalar(None, pa.string()))


def tally_pairs(left: pa.Array, right: pa.Array) -> Counter[tuple[str, str]]:
    """How often each pair of values stands in one row; rows in which one is null are left out."""
    table = pa.table({"left": left, "right": right}).drop_null()
    grouped = table.group_by(["left", "right"], use_threads=False).aggregate([([], "count_all")])
    return Counter(
        {(row["left"], row["right"]): row["count_all"] for row in grouped.to_pylist()},
    )
