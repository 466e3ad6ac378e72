"""Which rows go to which worker, and what becomes of them when a worker dies. No Ray, no files, no clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from pipeline.errors import WorkersExhausted
from pipeline.shard.shards import CHUNK_ROWS, Chunk, ShardPlan

HELD = 2
"""Assignments a worker holds at most: one to work on, one at hand before that one drains."""
SUSPECT_ROWS = 16
"""The group size between a suspected chunk and its single rows: most groups prove innocent at once."""
MEMORY_TRIES = 3
"""Deaths for want of memory after which an assignment waits until it can have the cluster to itself."""
FEWEST_ROWS = 32
"""The least rows that are cut off a longer shard, however slow the workers or near the end."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Chunks that one worker answers and commits; together they hold up to CHUNK_ROWS rows.

    attempt: how often these rows have been handed out, this time included.
    alone: suspects; the worker holds nothing else meanwhile.
    exclusive: nobody else holds anything meanwhile, as its rows may be what fills the memory.
    deaths: workers that died while this single row was all they held.
    condemned: the verdict on such a row: answer it with `worker_crashed`, don't run it.
    """

    id: int
    chunks: tuple[Chunk, ...]
    attempt: int = 1
    alone: bool = False
    exclusive: bool = False
    deaths: int = 0
    condemned: bool = False

    @property
    def rows(self) -> int:
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def weight(self) -> int:
        return sum(weight(chunk) for chunk in self.chunks)


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
        chunk = Chunk(self.plan.shard.name, start, stop)
        self.unassigned -= weight(chunk)
        return chunk


class Coordinator:
    """Hands every row of every shard to some worker until it has come back, exactly once.

    Chunks are cut when they are asked for, so memory grows with shards and workers, not with rows.
    Large shards go first, and several workers share a shard that outweighs the others; tiny shards
    are packed together. With several workers the last chunks are smaller, so that all end together.

    A worker's death that its rows may have caused puts them under suspicion: tried in small groups,
    then one by one, each with a worker of its own. A row that is alone at `max_attempts` deaths is
    condemned. Rows that are lost again and again for want of memory come last, with
    nobody beside them: only there does such a death speak against them.

    workers: how many there are now. chunk_rows: how many rows a worker answers in about a minute; chunks
    are no longer than that, within FEWEST_ROWS and CHUNK_ROWS.
    """

    def __init__(self, max_attempts: int = 3, workers: int = 1) -> None:
        self.workers = workers
        self.chunk_rows = CHUNK_ROWS
        self._fatal_deaths = max_attempts
        self._works: dict[str, _Work] = {}
        self._waiting: list[tuple[int, str]] = []
        self._open: dict[str, _Work] = {}
        self._unassigned = 0
        self._homes: dict[str, _Work] = {}
        self._held: dict[str, dict[int, Assignment]] = {}
        self._retries: deque[Assignment] = deque()
        self._suspects: deque[Assignment] = deque()
        self._hogs: deque[Assignment] = deque()
        self._ids = count(1)

    @property
    def idle(self) -> bool:
        """Whether every row of every shard that was added has come back."""
        return not self._works

    def plan(self, shard: str) -> ShardPlan:
        """The plan of a shard that isn't complete."""
        return self._works[shard].plan

    def held(self, worker: str) -> tuple[Assignment, ...]:
        return tuple(self._held.get(worker, {}).values())

    def add(self, plan: ShardPlan, done: Iterable[Chunk] = ()) -> bool:
        """Takes a shard on, less the chunks that are `done`; False if nothing is left of it."""
        work = _Work(plan, deque(gaps(plan.rows, done)))
        if not work.pending:
            return False
        self._works[plan.shard.name] = work
        self._unassigned += work.unassigned
        heapq.heappush(self._waiting, (-work.unassigned, plan.shard.name))
        return True

    def assign(self, worker: str) -> Assignment | None:
        """The next assignment, which the worker then holds; None if it has enough, or none is left."""
        held = self._held.setdefault(worker, {})
        if len(held) >= HELD or any(assignment.alone for assignment in held.values()):
            return None
        if any(assignment.exclusive for others in self._held.values() for assignment in others.values()):
            return None
        assignment = self._next(worker, empty=not held)
        if assignment:
            held[assignment.id] = assignment
        return assignment

    def complete(self, worker: str, assignment: Assignment) -> list[ShardPlan]:
        """Takes an assignment as committed; returns the shards that are complete by it.

        One that this worker no longer holds (it was thought lost) changes nothing."""
        if self._held.get(worker, {}).pop(assignment.id, None) is None:
            return []
        return self._settle(assignment.chunks)

    def lost(
        self, worker: str, blame: bool, committed: Collection[Chunk] = (), memory: bool = False
    ) -> list[ShardPlan]:
        """Takes back what a dead worker held, less the chunks that it had `committed`.

        blame: its rows may have killed it; False for lost nodes, preemption and want of memory.
        memory: it was killed for want of memory.
        Returns the shards that are complete by what was committed. Raises WorkersExhausted for a
        row that kills even the workers that only write its verdict."""
        complete = []
        for assignment in self._held.pop(worker, {}).values():
            complete += self._settle(chunk for chunk in assignment.chunks if chunk in committed)
            left = tuple(chunk for chunk in assignment.chunks if chunk not in committed)
            if left:
                again = replace(assignment, chunks=left, attempt=assignment.attempt + 1)
                self._requeue(again, blame or (memory and assignment.exclusive), memory)
        self._leave_home(worker)
        return complete

    def _settle(self, chunks: Iterable[Chunk]) -> list[ShardPlan]:
        complete = []
        for chunk in chunks:
            work = self._works[chunk.shard]
            work.pending -= weight(chunk)
            assert work.pending >= 0, f"{chunk} came back twice"
            if not work.pending:
                del self._works[chunk.shard]
                complete.append(work.plan)
        return complete

    def _requeue(self, assignment: Assignment, blame: bool, memory: bool) -> None:
        if memory and assignment.attempt > MEMORY_TRIES:
            assignment = replace(assignment, alone=True, exclusive=True)
        for part in self._suspected(assignment) if blame else (assignment,):
            queue = self._queue(part)
            # To its verdict at once: where many bad rows lie side by side, their verdicts are all the
            # progress there is, and a pool gives up after so many deaths without any.
            (queue.appendleft if part.deaths else queue.append)(replace(part, id=next(self._ids)))

    def _queue(self, assignment: Assignment) -> deque[Assignment]:
        if assignment.exclusive:
            return self._hogs
        return self._suspects if assignment.alone else self._retries

    def _suspected(self, assignment: Assignment) -> Iterator[Assignment]:
        if assignment.alone and assignment.weight == 1:
            yield self._judge(assignment)
            return
        size = SUSPECT_ROWS if assignment.weight > SUSPECT_ROWS else 1
        for group in _groups(assignment.chunks, size):
            yield replace(assignment, chunks=group, alone=True)

    def _judge(self, assignment: Assignment) -> Assignment:
        deaths = assignment.deaths + 1
        if deaths > self._fatal_deaths + HELD:
            chunk = assignment.chunks[0]
            raise WorkersExhausted(f"{chunk.shard}: row {chunk.start} kills every worker that reads it")
        return replace(assignment, deaths=deaths, condemned=deaths >= self._fatal_deaths)

    def _next(self, worker: str, empty: bool) -> Assignment | None:
        if self._suspects and empty:
            return self._suspects.popleft()
        if self._retries:
            return self._retries.popleft()
        if chunks := tuple(self._fresh(worker)):
            return Assignment(next(self._ids), chunks)
        nobody_works = not any(self._held.values())
        return self._hogs.popleft() if self._hogs and nobody_works else None

    def _fresh(self, worker: str) -> Iterator[Chunk]:
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
        if not self._waiting or (shared and _share(shared) > -self._waiting[0][0]):
            return shared
        _, name = heapq.heappop(self._waiting)
        self._open[name] = self._works[name]
        return self._open[name]

    def _leave_home(self, worker: str) -> None:
        if work := self._homes.pop(worker, None):
            work.at_home.discard(worker)

    def _close(self, work: _Work) -> None:
        del self._open[work.plan.shard.name]
        for worker in tuple(work.at_home):
            self._leave_home(worker)


def weight(chunk: Chunk) -> int:
    """Its rows; 1 for the chunk of a shard without rows, which needs a visit to get its empty file."""
    return max(1, chunk.rows)


def _share(work: _Work) -> float:
    return work.unassigned / (1 + len(work.at_home))


def _groups(chunks: Iterable[Chunk], size: int) -> Iterator[tuple[Chunk, ...]]:
    """Parts of `chunks`, in order, in groups of up to `size` rows."""
    group: list[Chunk] = []
    for chunk in chunks:
        for start in range(chunk.start, max(chunk.stop, chunk.start + 1), size):
            part = Chunk(chunk.shard, start, min(start + size, chunk.stop))
            if group and sum(map(weight, group)) + weight(part) > size:
                yield tuple(group)
                group = []
            group.append(part)
    yield tuple(group)


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
