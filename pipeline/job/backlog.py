"""The rows that nobody has been given yet, and how many of each shard have still to come back."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.input.shards import CHUNK_ROWS, Chunk, ShardPlan

FEWEST_ROWS = 32
"""The smallest chunk that is cut off a larger shard, however slow the workers or near the end."""


@dataclass(slots=True)
class _Work:
    """What is left of one shard. gaps: ranges that nobody has been given yet, in order."""

    plan: ShardPlan
    gaps: deque[tuple[int, int]]
    unassigned: int = 0
    pending: int = 0
    at_home: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.unassigned = self.pending = sum(max(1, stop - start) for start, stop in self.gaps)

    @property
    def next_rows(self) -> int:
        start, stop = self.gaps[0]
        return stop - start

    def cut(self, limit: int) -> Chunk:
        """The next range of at most `limit` rows."""
        start, end = self.gaps.popleft()
        stop = min(end, start + limit)
        if stop < end:
            self.gaps.appendleft((stop, end))
        return self._taken(start, stop)

    def cut_last(self) -> Chunk:
        """The last row."""
        start, end = self.gaps.pop()
        if end - start > 1:
            self.gaps.append((start, end - 1))
        return self._taken(max(start, end - 1), end)

    def _taken(self, start: int, stop: int) -> Chunk:
        chunk = Chunk(self.plan.shard.name, start, stop)
        self.unassigned -= weight(chunk)
        return chunk


class Backlog:
    """Chunks are cut when they are asked for, so memory grows with shards and workers, not with rows.

    Large shards go first, and several workers share a shard that outweighs the others; tiny shards
    are packed together. With several workers the last chunks are smaller, so that all end together.

    workers: how many there are now. chunk_rows: how many rows a worker answers in about a minute; chunks
    are no longer than that, within FEWEST_ROWS and CHUNK_ROWS.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.chunk_rows = CHUNK_ROWS
        self._works: dict[str, _Work] = {}
        self._waiting: list[tuple[int, str]] = []
        self._open: dict[str, _Work] = {}
        self._unassigned = 0
        self._homes: dict[str, _Work] = {}

    @property
    def idle(self) -> bool:
        """Whether every row of every shard that was added has come back."""
        return not self._works

    @property
    def unassigned(self) -> int:
        """The rows that nobody has been given yet."""
        return self._unassigned

    def plan(self, shard: str) -> ShardPlan:
        """The plan of a shard that isn't complete."""
        return self._works[shard].plan

    def add(self, plan: ShardPlan, done: Iterable[Chunk] = ()) -> bool:
        """Takes a shard on, less the chunks that are `done`; False if nothing is left of it."""
        work = _Work(plan, deque(gaps(plan.rows, done)))
        if not work.pending:
            return False
        self._works[plan.shard.name] = work
        self._unassigned += work.unassigned
        heapq.heappush(self._waiting, (-work.unassigned, plan.shard.name))
        return True

    def settle(self, chunks: Iterable[Chunk]) -> list[ShardPlan]:
        """Takes chunks as committed; returns the shards that are complete by it."""
        complete = []
        for chunk in chunks:
            work = self._works[chunk.shard]
            work.pending -= weight(chunk)
            assert work.pending >= 0, f"{chunk} came back twice"
            if not work.pending:
                del self._works[chunk.shard]
                complete.append(work.plan)
        return complete

    def take(self, worker: str) -> tuple[Chunk, ...]:
        """The next chunks for a worker, together up to a chunk's rows; none when all are given out."""
        return tuple(self._chunks(worker))

    def take_last_row(self) -> Chunk | None:
        """The last row of the shard with the most rows: far from those that are given out in order."""
        works = [work for work in self._works.values() if work.gaps]
        if not works:
            return None
        work = max(works, key=lambda work: work.unassigned)
        chunk = work.cut_last()
        self._unassigned -= weight(chunk)
        if not work.gaps and work.plan.shard.name in self._open:
            self._close(work)
        return chunk

    def leave(self, worker: str) -> None:
        """The worker is gone."""
        if work := self._homes.pop(worker, None):
            work.at_home.discard(worker)

    def _chunks(self, worker: str) -> Iterator[Chunk]:
        room = limit = self._limit()
        while room and (work := self._home(worker)):
            # Only whole chunks fill an assignment up: a large shard isn't cut to fit a small remainder.
            if min(work.next_rows, limit) > room:
                return
            chunk = work.cut(limit)
            self._unassigned -= weight(chunk)
            room -= weight(chunk)
            if not work.gaps:
                self._close(work)
            yield chunk

    def _limit(self) -> int:
        most = max(FEWEST_ROWS, min(CHUNK_ROWS, self.chunk_rows))
        if self.workers == 1:
            return most
        share = -(-self._unassigned // self.workers)
        return min(most, max(FEWEST_ROWS, share))

    def _home(self, worker: str) -> _Work | None:
        """The shard that the worker draws from: its last one, as readers are cheapest going forward."""
        if worker not in self._homes and (work := self._heaviest()):
            work.at_home.add(worker)
            self._homes[worker] = work
        return self._homes.get(worker)

    def _heaviest(self) -> _Work | None:
        """The shard with the most rows for one more worker, be it untouched or shared."""
        shared = max(self._open.values(), key=_share, default=None)
        while self._waiting and not self._is_untouched(self._waiting[0][1]):
            heapq.heappop(self._waiting)
        if not self._waiting or (shared and _share(shared) > -self._waiting[0][0]):
            return shared
        _, name = heapq.heappop(self._waiting)
        self._open[name] = self._works[name]
        return self._open[name]

    def _is_untouched(self, name: str) -> bool:
        """Whether the shard still has rows to give: its last ones may have been taken out of turn."""
        return name in self._works and bool(self._works[name].gaps)

    def _close(self, work: _Work) -> None:
        del self._open[work.plan.shard.name]
        for worker in tuple(work.at_home):
            self.leave(worker)


def weight(chunk: Chunk) -> int:
    """Its rows; 1 for the chunk of a shard without rows, which needs a visit to get its empty file."""
    return max(1, chunk.rows)


def _share(work: _Work) -> float:
    return work.unassigned / (1 + len(work.at_home))


def left_of(chunk: Chunk, done: Iterable[Chunk]) -> Iterator[Chunk]:
    """The parts of a chunk that are in none of `done`, which don't overlap."""
    cut = (part.cut(chunk).moved(-chunk.start) for part in done if part.shard == chunk.shard)
    # A shard without rows is done by a chunk without rows.
    for start, stop in gaps(chunk.rows, [part for part in cut if part.rows > 0 or not chunk.rows]):
        yield Chunk(chunk.shard, start, stop).moved(chunk.start)


def left_of_all(chunks: Iterable[Chunk], done: Iterable[Chunk]) -> Iterator[Chunk]:
    """The same for many chunks of one shard."""
    ordered = sorted(done)
    starts = [part.start for part in ordered]
    for chunk in chunks:
        first, last = bisect_right(starts, chunk.start) - 1, bisect_left(starts, chunk.stop)
        yield from left_of(chunk, ordered[max(0, first) : last])


def gaps(rows: int, done: Iterable[Chunk]) -> Iterator[tuple[int, int]]:
    """The ranges of a shard of `rows` rows that `done` leaves open.

    Chunks that overlap (a worker that was thought dead wrote one as well) count as far as they tile:
    the longest at each border, none that begins inside another."""
    border = 0
    done = set(done)
    if not rows and not done:
        yield 0, 0
    for chunk in sorted(done, key=lambda chunk: (chunk.start, -chunk.stop)):
        if chunk.start < border:
            continue
        if chunk.start > border:
            yield border, chunk.start
        border = chunk.stop
    if border < rows:
        yield border, rows
