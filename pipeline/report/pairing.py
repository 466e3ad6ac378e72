"""The rows of two outputs of one shard, matched by their names while both are read."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa


@dataclass
class Pairing:
    """Matches two streams of tables by their column custom_id; what can't be matched is counted.

    Of rows with one name, the first goes with the first. Streams in the same order are matched as they come;
    else rows are held until their partner is there.
    """

    first_only: int = field(default=0, init=False)
    second_only: int = field(default=0, init=False)

    def pairs(
        self, first: Iterable[pa.Table], second: Iterable[pa.Table]
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Tables of equal length whose rows belong together."""
        left, right = _Stream(first), _Stream(second)
        moved = True
        while moved:
            moved = False
            if same := _same_start(left.held, right.held):
                yield left.take(same), right.take(same)
                moved = True
            elif (found := _partners(left.held, right.held))[0]:
                yield left.pick(found[0]), right.pick(found[1])
                moved = True
            # As many as are held, so that rows in another order are looked through only a few times.
            moved |= left.more(len(left.held)) | right.more(len(right.held))
        self.first_only += len(left.held)
        self.second_only += len(right.held)


class _Stream:
    """Tables that come one after the other. held: the rows that have come and are not matched yet."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._tables = iter(tables)
        self.ended = False
        self.held: pa.Table = pa.table({})
        self.more(0)

    def more(self, rows: int) -> bool:
        """Reads one table, or as many as it takes to hold that many rows. Returns whether any came."""
        found: list[pa.Table] = []
        while not self.ended and sum(map(len, found)) <= rows:
            table = next(self._tables, None)
            if table is None:
                self.ended = True
            else:
                found.append(table)
        if found:
            self.held = pa.concat_tables([self.held, *found] if len(self.held) else found)
        return bool(found)

    def take(self, rows: int) -> pa.Table:
        """The first rows that are held, which are held no longer."""
        taken, self.held = self.held.slice(0, rows), self.held.slice(rows)
        return taken

    def pick(self, places: list[int]) -> pa.Table:
        """The rows in these places, in this order, which are held no longer."""
        picked = self.held.take(pa.array(places, pa.int64()))
        stays = np.ones(len(self.held), bool)
        stays[places] = False
        self.held = self.held.filter(pa.array(stays))
        return picked


def _names(table: pa.Table) -> list[str]:
    return table.column("custom_id").to_pylist() if len(table) else []


def _same_start(left: pa.Table, right: pa.Table) -> int:
    """How many rows from the beginning have the same names."""
    count = min(len(left), len(right))
    names = zip(_names(left.slice(0, count)), _names(right.slice(0, count)), strict=True)
    return next((place for place, (one, other) in enumerate(names) if one != other), count)


def _partners(left: pa.Table, right: pa.Table) -> tuple[list[int], list[int]]:
    """The places of rows that belong together, in the order of the left ones."""
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    for place, name in enumerate(_names(right)):
        waiting[name].append(place)
    found = [(place, waiting[name].popleft()) for place, name in enumerate(_names(left)) if waiting.get(name)]
    return [mine for mine, _ in found], [theirs for _, theirs in found]
