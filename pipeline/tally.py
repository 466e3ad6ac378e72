"""Counts that add up: a row's, a chunk's, a shard's, the job's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Tally:
    """What some rows cost. `a + b` is the tally of both; the fields are `usage.parquet`'s columns, but for
    reused: rows that earlier equal ones answered, of which the rows themselves keep no trace."""

    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    attempts: int = 0
    seconds: float = 0.0
    reused: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_dict(self) -> dict[str, Any]:
        """All fields and total_tokens, ready for JSON."""
        return asdict(self) | {"total_tokens": self.total_tokens}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Tally:
        """The inverse of `to_dict`. Outputs of older versions say nothing of reused rows: 0."""
        known = {"reused": 0, **record}
        return cls(**{f.name: known[f.name] for f in fields(cls)})
