"""What changed between two runs over the same rows, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.output.footer import count
from pipeline.report.label_counts import LONGEST_LABEL, MOST_LABELS, labels_of, tally_pairs
from pipeline.report.reservoir import Reservoir
from pipeline.report.row_batch import RowBatch
from pipeline.report.spread import Spread
from pipeline.tally import Tally

EXAMPLES = 12
SAME_COSINE = 0.9999
"""Vectors with at least this cosine count as the same."""
_SAID = ("text", ["message", "content"], ["message", "tool_calls"])


@dataclass(frozen=True, slots=True)
class Change:
    """A row that two runs answered differently. probability: of each answer, None where it isn't known."""

    custom_id: str
    shard: str
    before: str
    after: str
    kept: dict[str, Any]
    probability: tuple[float | None, float | None] = (None, None)


@dataclass
class Comparison:
    """Rows that both outputs have. before, after: what they cost in each.

    same, changed: rows with an answer in both. lost, won: answered only before, or only after.
    unanswered: in neither. labels: rows by their label before and after; empty where answers are no labels.
    """

    before: Tally = field(default_factory=Tally)
    after: Tally = field(default_factory=Tally)
    seconds: tuple[float, float] = (0.0, 0.0)
    same: int = 0
    changed: int = 0
    lost: int = 0
    won: int = 0
    unanswered: int = 0
    errors: tuple[Counter[str], Counter[str]] = field(default_factory=lambda: (Counter(), Counter()))
    cosines: Spread = field(default_factory=lambda: Spread(seed=21))
    _pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _various: bool = False
    _changes: Reservoir[Change] = field(default_factory=lambda: Reservoir(EXAMPLES, seed=22))

    @property
    def rows(self) -> int:
        return self.same + self.changed + self.lost + self.won + self.unanswered

    @property
    def agreement(self) -> float | None:
        """The share of the rows with two answers in which these are the same."""
        both = self.same + self.changed
        return self.same / both if both else None

    @property
    def labels(self) -> Counter[tuple[str, str]]:
        few = len({label for pair in self._pairs for label in pair}) * 2 <= sum(self._pairs.values())
        return self._pairs if few and not self._various else Counter()

    @property
    def label_changes(self) -> list[tuple[str, str, int]]:
        """Labels before and after that differ, with their rows, the commonest first."""
        found = [(one, other, rows) for (one, other), rows in self.labels.items() if one != other]
        return sorted(found, key=lambda change: (-change[2], *change[:2]))

    @property
    def examples(self) -> list[Change]:
        """Changed rows, drawn at random."""
        return self._changes.items

    def add(self, before: RowBatch, after: RowBatch) -> None:
        """Takes rows of both outputs; those in one place belong together."""
        self.before += count(before.table)
        self.after += count(after.table)
        had, has = before.answered, after.answered
        self.lost += int((had & ~has).sum())
        self.won += int((~had & has).sum())
        self.unanswered += int((~had & ~has).sum())
        for counter, batch in zip(self.errors, (before, after), strict=True):
            codes = pc.struct_field(batch.column("error"), "code").drop_null()
            counter.update({c["values"]: c["counts"] for c in pc.value_counts(codes).to_pylist()})
        both = had & has
        times = [np.nansum(batch.seconds[both]) for batch in (before, after)]
        self.seconds = (self.seconds[0] + float(times[0]), self.seconds[1] + float(times[1]))
        if before.has("embedding"):
            self._vectors(before, after, both)
        else:
            self._texts(before, after, both)

    def _texts(self, before: RowBatch, after: RowBatch, both: NDArray[np.bool_]) -> None:
        alike = np.array(
            [one == other for one, other in zip(_answers(before), _answers(after), strict=True)], bool
        )
        (labels, sure), (others, surer) = labels_of(before), labels_of(after)
        self._count_labels(labels, others)
        changed = np.flatnonzero(both & ~alike)

        def change(index: int) -> Change:
            row = int(changed[index])
            shares = (sure[row], surer[row])
            return _change(before, after, row, (_said(before, row), _said(after, row)), shares)

        self._note(both, alike, changed, change)

    def _count_labels(self, labels: pa.Array, others: pa.Array) -> None:
        if self._various:
            return
        self._pairs += tally_pairs(labels, others)
        names = {label for pair in self._pairs for label in pair}
        longest = max(map(len, names), default=0)
        self._various = len(names) > MOST_LABELS or longest > LONGEST_LABEL
        if self._various:
            self._pairs.clear()

    def _vectors(self, before: RowBatch, after: RowBatch, both: NDArray[np.bool_]) -> None:
        cosines = np.array(
            [
                _cosine(one, other) if known else np.nan
                for one, other, known in zip(
                    before.vectors.to_pylist(),
                    after.vectors.to_pylist(),
                    both,
                    strict=True,
                )
            ]
        )
        self.cosines.add(cosines)
        alike = cosines >= SAME_COSINE
        changed = np.flatnonzero(both & ~alike)

        def change(index: int) -> Change:
            row = int(changed[index])
            text = "vectors of different lengths" if np.isnan(cosines[row]) else f"cosine {cosines[row]:.4f}"
            return _change(before, after, row, ("", text), (np.nan, np.nan))

        self._note(both, alike, changed, change)

    def _note(
        self,
        both: NDArray[np.bool_],
        alike: NDArray[np.bool_],
        changed: NDArray[np.int64],
        change: Any,
    ) -> None:
        self.same += int((both & alike).sum())
        self.changed += len(changed)
        self._changes.offer(len(changed), change)


def _answers(batch: RowBatch) -> list[list[Any]]:
    """What each row was answered with, in all of its choices: texts and calls, without their ids."""
    choices = batch.column("choices")
    found: list[list[Any]] = [[] for _ in range(len(batch))]
    flat = pc.list_flatten(choices)
    columns = [pc.struct_field(flat, path).to_pylist() for path in _SAID]
    for row, *said in zip(pc.list_parent_indices(choices).to_pylist(), *columns, strict=True):
        found[row].append([*said[:-1], [call["function"] for call in said[-1] or ()]])
    return found


def _said(batch: RowBatch, row: int) -> str:
    """The row's answer for people: its first choice's text, or its calls."""
    text, content, calls = _answers(batch.slice(row))[0][0]
    said = [text or content or "", *(f"{call['name']}({call['arguments']})" for call in calls)]
    return "\n".join(filter(None, said))


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """NaN for vectors of different lengths; 1 for two of zeros."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape:
        return np.nan
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / size if size else float(np.array_equal(first, second))


def _change(
    before: RowBatch, after: RowBatch, row: int, said: tuple[str, str], shares: tuple[float, float]
) -> Change:
    kept = [(batch, name) for batch in (before, after) for name in batch.kept]
    return Change(
        str(before.names()[row].as_py()),
        before.shard,
        *said,
        {name: batch.column(name)[row].as_py() for batch, name in kept},
        tuple(None if np.isnan(share) else float(share) for share in shares),  # type: ignore[arg-type]
    )
