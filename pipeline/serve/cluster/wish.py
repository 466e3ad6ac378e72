"""What the front of a proxy knows of a request, told to Serve's router in a header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

HEADER = b"x-session-id"
"""The header whose value Serve hands to its router."""
_REPLICA = "replica:"


@dataclass(frozen=True, slots=True)
class Wish:
    """beginnings: as `beginnings.beginnings`. replica: the only one that is to answer; "" for any."""

    beginnings: tuple[str, ...] = ()
    replica: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        if text.startswith(_REPLICA):
            return cls(replica=text.removeprefix(_REPLICA))
        return cls(tuple(filter(None, text.split("."))))

    def written(self) -> str:
        return f"{_REPLICA}{self.replica}" if self.replica else ".".join(self.beginnings)
