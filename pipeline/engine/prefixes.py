"""Shared beginnings: each decoded once into a sequence of its own, from which rows take their cells."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Prefix:
    """A shared beginning in sequence `slot`. users: rows that hold its cells or wait for them."""

    tokens: tuple[int, ...]
    slot: int
    filled: int = 0
    users: int = 0

    @property
    def ready(self) -> bool:
        return self.filled == len(self.tokens)

    def pending(self, limit: int) -> list[int]:
        """At most `limit` tokens that still have to be decoded, in order."""
        return list(self.tokens[self.filled : self.filled + limit])


class PrefixCache:
    """At most as many prefixes as there are holder sequences; the least recently used goes first."""

    def __init__(self, slots: range) -> None:
        self._free = list(reversed(slots))
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()

    @property
    def cells(self) -> int:
        """Cells that all prefixes hold."""
        return sum(len(prefix.tokens) for prefix in self._prefixes.values())

    def unfinished(self) -> list[Prefix]:
        return [prefix for prefix in self._prefixes.values() if not prefix.ready]

    def find(self, tokens: tuple[int, ...]) -> Prefix | None:
        prefix = self._prefixes.get(tokens)
        if prefix:
            self._prefixes.move_to_end(tokens)
        return prefix

    def open(self, tokens: tuple[int, ...]) -> Prefix | None:
        """A new, empty prefix; None while every holder is taken (`evict` one)."""
        if not self._free:
            return None
        prefix = self._prefixes[tokens] = Prefix(tokens, self._free.pop())
        return prefix

    def evict(self) -> int | None:
        """Gives up the least recently used prefix that nobody uses: its slot, to be cleared."""
        idle = next((prefix for prefix in self._prefixes.values() if not prefix.users), None)
        if idle is None:
            return None
        del self._prefixes[idle.tokens]
        self._free.append(idle.slot)
        return idle.slot
