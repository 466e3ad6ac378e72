"""One pass over an output's rows: all that its report tells of them, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import nlargest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.footer import count
from pipeline.report.failures import Failures
from pipeline.report.gold import Gold
from pipeline.report.label_counts import LabelCounts, label_fields, labels_of
from pipeline.report.reservoir import Reservoir
from pipeline.report.row_batch import RowBatch
from pipeline.report.spread import Spread
from pipeline.report.timeline import Timeline
from pipeline.report.vectors import Vectors
from pipeline.tally import Tally

READ = 10
"""Answers to read."""
SLOWEST = 8

Row = dict[str, Any]


class Survey:
    """What is known of the rows so far.

    labels: by the field of the answer that holds them, "" for the whole answer.
    numbers: of the answers, by prompt_tokens, completion_tokens, characters and seconds.
    """

    def __init__(self, kept: Sequence[str] = (), gold: str | None = None) -> None:
        """kept: the columns that were carried along. gold: the one of them that holds the right labels."""
        self.kept = tuple(kept)
        self.tally = Tally()
        self.retried = 0
        self.finish_reasons: Counter[str] = Counter()
        self.incomplete = 0
        self.numbers = {
            name: Spread(seed)
            for seed, name in enumerate(("prompt_tokens", "completion_tokens", "characters", "seconds"))
        }
        self.timeline = Timeline()
        self.failures = Failures()
        self.labels: dict[str, LabelCounts] = {}
        self.gold = Gold(gold) if gold else None
        self.vectors = Vectors(gold)
        self._samples: Reservoir[Row] = Reservoir(READ, seed=11)
        self._slowest: list[tuple[float, int, Row]] = []

    def add(self, batch: RowBatch) -> None:
        if not len(batch):
            return
        self.tally += count(batch.table)
        self.retried += int(pc.sum(pc.greater(batch.column("attempts"), 1)).as_py() or 0)
        self.timeline.add(batch.created, batch.prompt_tokens, batch.completion_tokens)
        self._spread(batch)
        self.failures.add(batch)
        if batch.has("embedding"):
            self.vectors.add(batch)
        else:
            self._texts(batch)

    @property
    def samples(self) -> list[Row]:
        """Answered rows, drawn at random."""
        return self._samples.items

    @property
    def slowest(self) -> list[tuple[float, Row]]:
        """The answered rows that took longest, each with its seconds."""
        return [(seconds, row) for seconds, _, row in self._slowest]

    def _spread(self, batch: RowBatch) -> None:
        answered = batch.answered
        found = (batch.prompt_tokens, batch.completion_tokens, batch.characters, batch.seconds)
        for spread, values in zip(self.numbers.values(), found, strict=True):
            spread.add(values[answered].astype(np.float64))

    def _texts(self, batch: RowBatch) -> None:
        counted = pc.value_counts(batch.column("finish_reason")).to_pylist()
        self.finish_reasons.update({c["values"]: c["counts"] for c in counted if c["values"]})
        self.incomplete += int(pc.sum(pc.invert(batch.column("complete"))).as_py() or 0)
        fields = label_fields(batch)
        for field in fields:
            self.labels.setdefault(field, LabelCounts()).add(*labels_of(batch, field))
        if self.gold:
            self.gold.add(batch, *labels_of(batch, self.gold.name if fields != [""] else ""))
        answered = np.flatnonzero(batch.answered)
        self._samples.offer(len(answered), lambda index: batch.record(int(answered[index])))
        self._slow(batch)

    def _slow(self, batch: RowBatch) -> None:
        known = np.flatnonzero(batch.answered & ~np.isnan(batch.seconds))
        last = known[np.argsort(-batch.seconds[known], kind="stable")[:SLOWEST]].tolist()
        floor = self._slowest[-1][0] if len(self._slowest) == SLOWEST else -1.0
        found = [
            (float(batch.seconds[i]), -self.tally.rows - i, batch.record(i))
            for i in last
            if batch.seconds[i] > floor
        ]
        self._slowest = nlargest(SLOWEST, [*self._slowest, *found], key=lambda entry: entry[:2])


_UNREAD = {"id", "object", "model", "system_fingerprint", "choices", "data"}


def columns_to_read(schema: pa.Schema) -> list[str]:
    """All but those that the report tells nothing of, which are the largest ones too."""
    return [name for name in schema.names if name not in _UNREAD]
