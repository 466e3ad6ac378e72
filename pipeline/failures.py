"""Why rows failed: how many for which reason, each with the message and the name of one such row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

MOST_REASONS = 8
"""Reasons that are kept, the commonest; of the others, only how many rows had which code."""
_LONGEST = 300
_NAME = 100
# What differs from row to row in one and the same message.
_OWN = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


@dataclass(frozen=True, slots=True)
class Reason:
    """rows: that failed for it. shard, custom_id: one of them, whose message it is."""

    code: str
    message: str
    rows: int
    shard: str
    custom_id: str

    @property
    def kind(self) -> tuple[str, str]:
        """Equal for rows that failed for the same reason, whatever their own values."""
        return self.code, _OWN.sub("", self.message)

    def __str__(self) -> str:
        return f"{self.message} (for example {self.custom_id!r} in {self.shard})"


@dataclass(frozen=True, slots=True)
class Failures:
    """codes: rows by code, the commonest first; it counts every failed row. reasons: the commonest, in order.

    `a + b` is those of both. A reason that was among the rarer ones of a part is counted too low.
    """

    codes: tuple[tuple[str, int], ...] = ()
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, errors: Iterable[Reason]) -> Failures:
        codes: Counter[str] = Counter()
        found: dict[tuple[str, str], Reason] = {}
        for error in errors:
            codes[error.code] += error.rows
            kind = error.kind
            if kind in found:
                found[kind] = replace(found[kind], rows=found[kind].rows + error.rows)
            else:
                name = error.custom_id[:_NAME]
                found[kind] = replace(error, message=error.message[:_LONGEST], custom_id=name)
        reasons = sorted(found.values(), key=lambda reason: -reason.rows)[:MOST_REASONS]
        return cls(_in_order(codes), tuple(reasons))

    def __add__(self, other: Failures) -> Failures:
        if not (self.codes and other.codes):
            return self if self.codes else other
        codes = Counter(dict(self.codes)) + Counter(dict(other.codes))
        reasons = Failures.of([*self.reasons, *other.reasons]).reasons
        return Failures(_in_order(codes), reasons)

    def __bool__(self) -> bool:
        return bool(self.codes)

    def lines(self) -> Iterator[str]:
        """For people: each code with its rows, and below it its reasons."""
        for code, rows in self.codes:
            yield f"{code}: {rows:,} row{'' if rows == 1 else 's'}"
            for reason in self.reasons:
                if reason.code == code:
                    yield f"  {reason.rows:,} x {reason}"

    def to_dict(self) -> dict[str, Any]:
        return {"codes": dict(self.codes), "reasons": [asdict(reason) for reason in self.reasons]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Failures:
        """The inverse of `to_dict`."""
        return cls(_in_order(record["codes"]), tuple(Reason(**reason) for reason in record["reasons"]))


NO_FAILURES = Failures()


def _in_order(codes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(codes.items(), key=lambda pair: (-pair[1], pair[0])))
