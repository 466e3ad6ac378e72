"""Counts that add up: a row's, a chunk's, a shard's, the job's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from pipeline.failures import NO_FAILURES, Failures

ALREADY_ANSWERED = 208
"""The status of a row that was skipped, as another output has its answer: HTTP's "already reported"."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What some rows cost. `a + b` is the tally of both. All fields but two are `usage.parquet`'s columns.

    reused: rows that earlier equal ones answered, of which the rows themselves keep no trace.
    errors: why the failed rows failed.
    """

    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    attempts: int = 0
    seconds: float = 0.0
    reused: int = 0
    errors: Failures = NO_FAILURES

    @property
    def skipped(self) -> int:
        """The rows that were left to another output, which has answered them."""
        return self.rows - self.succeeded - self.failed

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def numbers(self) -> dict[str, float]:
        """All counts, and total_tokens."""
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "errors"}
        return counts | {"total_tokens": self.total_tokens}

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return self.numbers | skipped | ({"errors": self.errors.to_dict()} if self.errors else {})

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Tally:
        """The inverse of `to_dict`. Outputs of older versions say nothing of reused rows, nor of errors."""
        errors = Failures.from_dict(record["errors"]) if "errors" in record else NO_FAILURES
        known = {"reused": 0, **record, "errors": errors}
        return cls(**{f.name: known[f.name] for f in fields(cls)})
