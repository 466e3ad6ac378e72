"""Which rows go to which worker, and what becomes of them when a worker dies. No Ray, no files, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count

from pipeline.errors import WorkersExhausted
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.job.assignment import Assignment, groups
from pipeline.job.backlog import Backlog, left_of
from pipeline.job.trust import Trust
from pipeline.tally import Tally

HELD = 2
"""Assignments a worker holds at most: one to work on, one at hand before that one drains."""
SUSPECT_ROWS = 16
"""The group size between a suspected chunk and its single rows: most groups prove innocent at once."""
MEMORY_TRIES = 3
"""Deaths for want of memory after which an assignment waits until it can have the cluster to itself."""
_CONTROLS = 8


class Coordinator:
    """Hands every row of every shard to some worker until it has come back, exactly once.

    A worker's death that its rows may have caused puts them under suspicion: tried in small groups,
    then one by one, each with a worker of its own. A row that is alone at `max_attempts` deaths is
    condemned; `Trust` says which deaths count. Where several machines are sound, a row has to kill on
    two of them, and with each of their kernels. Rows that are lost again and again for want of memory
    come last, with nobody beside them: only there does such a death speak against them.

    backlog: the rows that nobody has been given yet. machines: those of the workers that are ready now.
    kernels: by machine, the id of the kernels that its workers use, where it is known.
    """

    def __init__(self, max_attempts: int = 3, workers: int = 1) -> None:
        self.backlog = Backlog(workers)
        self.machines: set[str] = set()
        self.kernels: dict[str, str] = {}
        self._fatal_deaths = max_attempts
        self._trust = Trust()
        self._where: dict[str, str] = {}
        self._held: dict[str, dict[int, Assignment]] = {}
        self._retries: deque[Assignment] = deque()
        self._suspects: deque[Assignment] = deque()
        self._hogs: deque[Assignment] = deque()
        self._controls: deque[tuple[Chunk, ...]] = deque(maxlen=_CONTROLS)
        self._ids = count(1)

    @property
    def idle(self) -> bool:
        """Whether every row of every shard that was added has come back."""
        return self.backlog.idle

    @property
    def barred(self) -> frozenset[str]:
        """The machines that get no more work, as new workers only die there."""
        return frozenset(self._trust.barred)

    def bar(self, machine: str) -> None:
        self._trust.bar(machine)

    def held(self, worker: str) -> tuple[Assignment, ...]:
        return tuple(self._held.get(worker, {}).values())

    @property
    def under_way(self) -> list[Assignment]:
        """What workers hold."""
        return [assignment for held in self._held.values() for assignment in held.values()]

    def add(self, plan: ShardPlan, done: Iterable[Chunk] = ()) -> bool:
        """Takes a shard on, less the chunks that are `done`; False if nothing is left of it."""
        return self.backlog.add(plan, done)

    def note_answered(self, chunks: tuple[Chunk, ...], tally: Tally) -> None:
        """Rows that were answered, now or by an earlier run: new workers can be tried on them.

        tally: of all these chunks together."""
        if tally.succeeded <= tally.reused:
            return
        if tally.succeeded == tally.rows:
            first = next(chunk for chunk in chunks if chunk.rows)
            self._controls.append((Chunk(first.shard, first.start, first.start + 1),))
        elif not self._controls:
            self._controls.append(chunks)

    def assign(self, worker: str, machine: str = "") -> Assignment | None:
        """The next assignment, which the worker then holds; None if it has enough, or none is for it.

        machine: where the worker runs."""
        self._where[worker] = machine
        held = self._held.setdefault(worker, {})
        if machine in self._trust.barred:
            return None
        if len(held) >= HELD or any(assignment.alone for assignment in held.values()):
            return None
        if any(assignment.exclusive for others in self._held.values() for assignment in others.values()):
            return None
        assignment = self._next(worker, empty=not held)
        if assignment:
            held[assignment.id] = assignment
        return assignment

    def complete(self, worker: str, assignment: Assignment, tally: Tally) -> list[ShardPlan]:
        """Takes an assignment as committed; returns the shards that are complete by it.

        tally: of its answers. One that this worker no longer holds (it was thought lost) changes nothing."""
        if self._held.get(worker, {}).pop(assignment.id, None) is None:
            return []
        if tally.succeeded > tally.reused:
            self._trust.answered(worker, self._where[worker])
        elif assignment.control:
            # It says nothing of the worker: next time, another one is taken.
            self._drop_control(assignment.chunks)
        if assignment.control:
            return []
        self.note_answered(assignment.chunks, tally)
        return self.backlog.settle(assignment.chunks)

    def lost(
        self, worker: str, blame: bool, committed: Mapping[Chunk, Tally] | None = None, memory: bool = False
    ) -> list[ShardPlan]:
        """Takes back what a dead worker held, less what was `committed` of it: chunks, or parts of them.

        blame: its rows may have killed it; False for lost nodes, preemption and want of memory.
        memory: it was killed for want of memory.
        Returns the shards that are complete by what was committed. Raises WorkersExhausted for a
        row that kills even the workers that only write its verdict."""
        complete, committed = [], committed or {}
        held = self._held.pop(worker, {}).values()
        if blame and worker in self._where:
            self._trust.died(worker, self._where[worker], any(assignment.is_trial for assignment in held))
        for chunk, tally in committed.items():
            self.note_answered((chunk,), tally)
        for assignment in held:
            if assignment.control:
                self._controls.rotate()
                continue
            done = [part for part in committed if any(map(part.within, assignment.chunks))]
            complete += self.backlog.settle(done)
            left = tuple(part for chunk in assignment.chunks for part in left_of(chunk, done))
            if left:
                again = replace(assignment, chunks=left, attempt=assignment.attempt + 1)
                self._requeue(worker, again, blame or (memory and assignment.exclusive), memory)
        self._forget(worker)
        return complete

    def _forget(self, worker: str) -> None:
        self.backlog.leave(worker)
        self._trust.forget(worker)
        self._where.pop(worker, None)

    def _requeue(self, worker: str, assignment: Assignment, blame: bool, memory: bool) -> None:
        if memory and assignment.attempt > MEMORY_TRIES:
            assignment = replace(assignment, alone=True, exclusive=True)
        for part in self._suspected(worker, assignment) if blame else (assignment,):
            queue = self._queue(part)
            # To its verdict at once: where many bad rows lie side by side, their verdicts are all the
            # progress there is, and a pool gives up after a number of deaths without any.
            (queue.appendleft if part.deaths else queue.append)(replace(part, id=next(self._ids)))

    def _queue(self, assignment: Assignment) -> deque[Assignment]:
        if assignment.exclusive:
            return self._hogs
        return self._suspects if assignment.alone else self._retries

    def _suspected(self, worker: str, assignment: Assignment) -> Iterator[Assignment]:
        if assignment.alone and assignment.weight == 1:
            proven = self._trust.is_proven(worker)
            yield self._judge(assignment, self._where[worker]) if proven else assignment
            return
        size = SUSPECT_ROWS if assignment.weight > SUSPECT_ROWS else 1
        for group in groups(assignment.chunks, size):
            yield replace(assignment, chunks=group, alone=True)

    def _judge(self, assignment: Assignment, machine: str) -> Assignment:
        deaths, died_on = assignment.deaths + 1, assignment.died_on | {machine}
        if assignment.condemned and deaths > self._fatal_deaths + 2 * HELD:
            chunk = assignment.chunks[0]
            raise WorkersExhausted(f"{chunk.shard}: row {chunk.start} kills every worker that reads it")
        condemned = assignment.condemned or self._is_guilty(deaths, died_on)
        return replace(assignment, deaths=deaths, died_on=died_on, condemned=condemned)

    def _is_guilty(self, deaths: int, died_on: frozenset[str]) -> bool:
        """Machines differ in their kernels, and may fail at some rows only: one that is sound must agree.

        Though not for ever: it may have gone, or be kept busy by others."""
        sound = self._trust.sound
        agreed = (len(died_on) > 1 or not sound - died_on) and not self._others(sound, died_on)
        return deaths >= self._fatal_deaths and (agreed or deaths >= self._fatal_deaths + HELD)

    def _next(self, worker: str, empty: bool) -> Assignment | None:
        machine, proven = self._where[worker], self._trust.is_proven(worker)
        if empty and not proven and self._trust.doubts(machine):
            return self._control() or self._probe() or self._hog(proven)
        if empty and (suspect := self._suspect(machine)):
            if not proven and (control := self._control()):
                return control
            self._suspects.remove(suspect)
            return suspect
        if self._retries:
            return self._retries.popleft()
        if chunks := self.backlog.take(worker):
            return Assignment(next(self._ids), chunks)
        return self._hog(proven)

    def _suspect(self, machine: str) -> Assignment | None:
        """The next suspect for a machine: a row that killed here goes to another one, if there is any."""
        machines = self.machines - self._trust.barred
        for suspect in self._suspects:
            best = self._others(machines, suspect.died_on) or machines - suspect.died_on
            if machine in best or not best:
                return suspect
        return None

    def _others(self, machines: set[str], died_on: frozenset[str]) -> set[str]:
        """The machines whose kernels a row hasn't died with; none where it has died nowhere."""
        tried = {self.kernels.get(machine, "") for machine in died_on}
        return {machine for machine in machines if tried and self.kernels.get(machine, "") not in tried}

    def _hog(self, proven: bool) -> Assignment | None:
        if not self._hogs or any(self._held.values()):
            return None
        return (None if proven else self._control()) or self._hogs.popleft()

    def _control(self) -> Assignment | None:
        if not self._controls:
            return None
        return Assignment(next(self._ids), self._controls[-1], alone=True, control=True)

    def _drop_control(self, chunks: tuple[Chunk, ...]) -> None:
        if chunks in self._controls:
            self._controls.remove(chunks)

    def _probe(self) -> Assignment | None:
        """A single row, each time from somewhere else: rows that kill may lie side by side."""
        number = next(self._ids)
        row = self.backlog.take_last_row() if number % 2 else None
        if row is None and (part := self._split_off()):
            return part
        row = row or self.backlog.take_last_row()
        if row:
            return Assignment(number, (row,), alone=True)
        return self._suspects.popleft() if self._suspects else None

    def _split_off(self) -> Assignment | None:
        """The first row of rows that have to be tried again."""
        queues = (self._suspects, self._retries)
        found = [(queue, part) for queue in queues for part in queue if part.weight > 1 or not part.alone]
        if not found:
            return None
        queue, part = found[0]
        queue.remove(part)
        first, *rest = part.chunks
        row = Chunk(first.shard, first.start, min(first.start + 1, first.stop))
        if row.stop < first.stop:
            rest.insert(0, Chunk(first.shard, row.stop, first.stop))
        if rest:
            # At the end: the next row is one of another group.
            queue.append(replace(part, id=next(self._ids), chunks=tuple(rest)))
        return replace(part, id=next(self._ids), chunks=(row,), alone=True)
