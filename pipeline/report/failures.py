"""The rows that got no answer, by kind of error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.report.reservoir import Reservoir
from pipeline.report.row_batch import RowBatch

EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed row."""

    custom_id: str
    shard: str
    row: int
    message: str
    param: str | None


class Failures:
    """Rows with an error: how many of each code, and some of them."""

    def __init__(self) -> None:
        self._found: dict[str, Reservoir[Failure]] = {}

    def add(self, batch: RowBatch) -> None:
        failed = np.flatnonzero(batch.failed)
        if not len(failed):
            return
        rows = batch.table.select(["custom_id", "error"]).take(failed).to_pylist()
        found = [_failure(batch, *place) for place in zip(failed.tolist(), rows, strict=True)]
        for code in {code for code, _ in found}:
            own = [failure for other, failure in found if other == code]
            self._found.setdefault(code, Reservoir(EXAMPLES, seed=3)).offer(len(own), own.__getitem__)

    @property
    def kinds(self) -> list[tuple[str, int, list[Failure]]]:
        """Each code with its rows and examples of them, the commonest first."""
        counted = [(code, rows.offered, rows.items) for code, rows in self._found.items()]
        return sorted(counted, key=lambda kind: (-kind[1], kind[0]))


def _failure(batch: RowBatch, place: int, row: Mapping[str, Any]) -> tuple[str, Failure]:
    """The error's code, and the row."""
    error = row["error"] or {}
    message, param = error.get("message") or "", error.get("param")
    return error.get("code") or "unknown", Failure(
        row["custom_id"], batch.shard, batch.start + place, message, param
    )
