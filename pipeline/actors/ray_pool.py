"""Actors that come and go: started, given work, watched, replaced. It decides nothing about rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from itertools import count
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.actors.cluster import Slot, draining
from pipeline.actors.pool import Done, Event, Lost, Note
from pipeline.actors.ray_member import Ailment, Member, cause
from pipeline.actors.row_actor import Heartbeat, RowActor, WorkerFactory
from pipeline.coordinator import Assignment
from pipeline.errors import JobError, WorkersExhausted
from pipeline.respond.responders import Pulse
from pipeline.shard.shards import ShardPlan
from pipeline.tally import Tally

STARTS = 3
"""Deaths in a row while starting that the pool puts up with."""
LOST_STARTS = 20
"""The same where the machine was at fault: it was lost, or its memory was full."""
FIRST_PAUSE = 0.25
"""Seconds before the next actor after one died while starting; doubled for each such death in a row."""
BARREN_DEATHS = 50
"""Deaths in a row without any assignment finished in between that the pool puts up with. The verdict on a
row that kills counts as finished only where other rows have been answered."""
LOOK_EVERY = 1.0
"""Seconds between looks for machines that are about to go."""
GROW_EVERY = 15.0
"""Seconds between looks for machines that have joined the cluster."""
_CALLS_AT_ONCE = 6


class RayPool:
    """As many actors of one slot each as `room` says. Work can begin with the first that is ready.

    room: how many actors the cluster has room for now; it is asked again while the job runs.
    stall: seconds that a worker with work may stand still before it is replaced.
    Raises what a starting worker raised if that is a JobError, and WorkersExhausted.
    """

    def __init__(
        self,
        build: WorkerFactory,
        slot: Slot,
        room: Callable[[], int],
        *,
        stall: float = 660.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build, self._slot, self._room = build, slot, room
        self._stall, self._clock = stall, clock
        remote: Any = ray.remote(RowActor)
        # Ray must not retry: only the coordinator knows which rows a death puts under suspicion.
        self._actor = remote.options(
            num_cpus=slot.cpus,
            num_gpus=slot.gpus,
            max_concurrency=_CALLS_AT_ONCE,
            max_restarts=0,
            max_task_retries=0,
        )
        self._members: dict[str, Member] = {}
        self._numbers = count(1)
        self._retired = Pulse()
        self._size = self._fit = room()
        self._grown = self._looked = clock()
        self._draining: frozenset[str] = frozenset()
        self._failed_starts = self._lost_starts = 0
        self._barren = 0
        self._answered = False
        self._not_before = 0.0
        self._memory_full = -math.inf
        self._told: set[str] = set()

    @property
    def ready(self) -> list[str]:
        """The workers that can take work: those that have started, on machines that will stay."""
        # Ray kills several at once when memory is full. One of which that isn't known yet must not be
        # given rows, as it would seem to have died of them.
        return [member.name for member in self._started() if member.alive >= self._memory_full]

    def pulse(self) -> Pulse:
        """The counters of all workers together, those of dead ones included."""
        return _sum([self._retired, *(member.pulse for member in self._members.values())])

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        self._members[worker].submit(assignment, plans, self._clock())

    def events(self, timeout: float) -> Iterator[Event]:
        """Replaces what is missing, waits up to `timeout` seconds, and tells what has happened."""
        self._look_around()
        self._fill()
        calls = {call: member for member in self._members.values() for call in member.calls}
        if not calls:
            time.sleep(timeout)
        else:
            # One wait blocks; the second takes along whatever else is ready.
            ray.wait(list(calls), timeout=timeout)
            ready, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
            for call in ready:
                yield from self._receive(calls[call], call)
        yield from self._watch()

    def close(self) -> None:
        """Ends all actors at once; what they had not committed is lost."""
        for member in self._members.values():
            member.kill()
        self._members.clear()

    def _staying(self) -> list[Member]:
        return [member for member in self._members.values() if member.node not in self._draining]

    def _started(self) -> list[Member]:
        return [member for member in self._staying() if member.starting is None]

    def _look_around(self) -> None:
        now = self._clock()
        if now - self._looked >= LOOK_EVERY:
            self._looked, self._draining = now, draining()
        if now - self._grown >= GROW_EVERY:
            self._grown, fit = now, self._room()
            self._size += max(0, fit - self._fit)
            self._fit = max(fit, self._fit)

    def _fill(self) -> None:
        missing = self._size - len(self._staying()) if self._clock() >= self._not_before else 0
        for _ in range(missing):
            # Names differ over a job's whole life, so that a late answer can't be mistaken.
            name = f"worker-{next(self._numbers)}"
            actor, now = self._actor.remote(self._build, self._slot), self._clock()
            self._members[name] = Member(name, actor, moved=now, alive=now)
            self._members[name].start()

    def _receive(self, member: Member, call: Any) -> Iterator[Event]:
        if member.name not in self._members:
            return
        try:
            answer = ray.get(call)
        except (RayError, Exception) as error:
            if isinstance(reason := cause(error), JobError):
                raise reason from None
            yield from self._lose(member, member.diagnose(reason))
            return
        if call is member.starting or member.is_pulse(call):
            yield from self._hear(member, call, answer)
        elif call in member.work:
            yield self._finished(member, call, answer)

    def _hear(self, member: Member, call: Any, beat: Heartbeat) -> Iterator[Note]:
        starting = member.starting
        if call is starting:
            member.started(self._clock())
        else:
            member.hear(beat, self._clock())
        yield from (Note(text) for text in beat.notes if text not in self._told)
        self._told.update(beat.notes)
        if starting is not None and member.starting is None:
            self._failed_starts = self._lost_starts = 0

    def _finished(self, member: Member, call: Any, tally: Tally) -> Done:
        assignment = member.finish(call, self._clock())
        self._answered |= not assignment.condemned
        if self._answered:
            self._barren = 0
        return Done(member.name, assignment, tally)

    def _watch(self) -> Iterator[Event]:
        now = self._clock()
        for member in tuple(self._members.values()):
            if ailment := member.ailment(now, self._stall):
                yield from self._lose(member, ailment)
            elif member.node in self._draining and not member.work:
                self._drop(member)
                yield Lost(member.name, False, "its machine is about to go")
            else:
                member.listen(now)

    def _lose(self, member: Member, ailment: Ailment) -> Iterator[Event]:
        if ailment.memory:
            self._memory_full = self._clock()
        if member.starting is not None:
            self._drop(member)
            self._count_start(ailment)
            return
        for call in tuple(member.work):
            # What was finished just before the death counts.
            with suppress(Exception):
                yield self._finished(member, call, ray.get(call, timeout=0))
        self._barren += bool(member.work) and (ailment.blame or ailment.memory)
        self._drop(member)
        if self._barren >= BARREN_DEATHS:
            raise WorkersExhausted(
                f"{self._barren} workers in a row died without finishing any rows: {ailment.reason}"
            )
        yield Lost(member.name, ailment.blame, ailment.reason, ailment.memory)

    def _drop(self, member: Member) -> None:
        del self._members[member.name]
        self._retired = _sum([self._retired, _at_rest(member.pulse)])
        member.kill()

    def _count_start(self, ailment: Ailment) -> None:
        self._failed_starts += ailment.blame
        self._lost_starts += 1
        self._not_before = self._clock() + FIRST_PAUSE * 2 ** min(self._lost_starts, 5)
        if self._failed_starts < STARTS and self._lost_starts < LOST_STARTS:
            return
        if not self._started():
            raise WorkersExhausted(
                f"{self._lost_starts} workers in a row died while starting: {ailment.reason}"
            )
        # There is no room for more: go on with those that run.
        self._size, self._failed_starts, self._lost_starts = len(self._members), 0, 0


def _sum(pulses: list[Pulse]) -> Pulse:
    return Pulse(**{f.name: sum(getattr(pulse, f.name) for pulse in pulses) for f in fields(Pulse)})


def _at_rest(pulse: Pulse) -> Pulse:
    return Pulse(**{f.name: getattr(pulse, f.name) for f in fields(Pulse)} | {"running": 0, "waiting": 0})
