"""Which rows of a job a try-out answers."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from pipeline.errors import ConfigError, InputError
from pipeline.input.shards import Chunk, ShardPlan

SEED = 20
"""Of all samples: the same input gives the same rows."""

Part = dict[str, list[Chunk]]
"""Some of a job's rows: by shard, ranges in order that don't touch each other."""


@dataclass(frozen=True, slots=True)
class TryOut:
    """The first rows of the input, or rows drawn by chance. A smaller try-out's rows are a larger one's, too.

    by_chance: drawn with SEED, each row as likely as any other.
    block: rows that are drawn together, because they stand together in the input.
    """

    rows: int
    by_chance: bool = False
    block: int = 1

    def __str__(self) -> str:
        return "--sample" if self.by_chance else "--limit"

    def choose(self, plans: Sequence[ShardPlan]) -> Part:
        """The rows, of all if there are no more. Raises InputError where the input has none.

        plans: of all shards, in the order of their names.
        """
        if not any(plan.rows for plan in plans):
            raise InputError(f"{self}: the input has no rows to try out")
        found = self._drawn(plans) if self.by_chance else self._first(plans)
        part: Part = {}
        for chunk in sorted(found):
            part.setdefault(chunk.shard, []).append(chunk)
        return {shard: _joined(chunks) for shard, chunks in part.items()}

    def _first(self, plans: Sequence[ShardPlan]) -> Iterator[Chunk]:
        left = self.rows
        for plan in plans:
            rows = min(left, plan.rows)
            if rows:
                yield Chunk(plan.shard.name, 0, rows)
            left -= rows

    def _drawn(self, plans: Sequence[ShardPlan]) -> Iterator[Chunk]:
        ends = list(accumulate(-(-plan.rows // self.block) for plan in plans))
        left = self.rows
        for number in _shuffled(ends[-1]):
            if left <= 0:
                return
            place = bisect_right(ends, number)
            plan, before = plans[place], ends[place - 1] if place else 0
            start = (number - before) * self.block
            chunk = Chunk(plan.shard.name, start, min(start + self.block, plan.rows))
            left -= chunk.rows
            yield chunk


def try_out(limit: int | None, sample: int | None) -> TryOut | None:
    """What the command line asks for; None for the whole job. Raises ConfigError."""
    if limit is not None and sample is not None:
        raise ConfigError("--limit and --sample: choose one: the first rows, or rows drawn by chance")
    asked = TryOut(limit) if limit is not None else None
    if sample is not None:
        asked = TryOut(sample, by_chance=True)
    if asked and asked.rows < 1:
        raise ConfigError(f"{asked} {asked.rows}: expected a number of rows, 1 or more")
    return asked


def _shuffled(count: int) -> Iterator[int]:
    """The numbers below `count`, in an order by chance. Memory grows with those that are taken."""
    chance, seen = random.Random(SEED), set[int]()
    while len(seen) < count:
        number = chance.randrange(count)
        if number not in seen:
            seen.add(number)
            yield number


def _joined(chunks: Iterable[Chunk]) -> list[Chunk]:
    """Ranges in order, those that touch each other made one."""
    joined: list[Chunk] = []
    for chunk in chunks:
        if joined and joined[-1].stop == chunk.start:
            chunk = Chunk(chunk.shard, joined.pop().start, chunk.stop)
        joined.append(chunk)
    return joined


def rows_of(part: Part) -> int:
    """How many rows it has."""
    return sum(chunk.rows for chunks in part.values() for chunk in chunks)
