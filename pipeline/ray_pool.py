"""Actors that come and go: started, given work, watched, replaced. It decides nothing about rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields
from itertools import count
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from pipeline.cluster import Slot
from pipeline.coordinator import Assignment
from pipeline.errors import JobError, WorkersExhausted
from pipeline.responders import Pulse
from pipeline.row_actor import Heartbeat, RowActor, WorkerFactory
from pipeline.shards import ShardPlan
from pipeline.tally import Tally

STARTS = 3
"""Deaths in a row while starting that the pool puts up with."""
FIRST_PAUSE = 0.25
"""Seconds before the next actor after one died while starting; doubled for each such death in a row."""
BARREN_DEATHS = 50
"""Deaths in a row without any assignment finished in between that the pool puts up with."""
PULSE_EVERY = 1.0
SILENCE = 45.0
"""Seconds without an answer after which an actor counts as dead."""
MISLAID = 20.0
"""Seconds that an assignment may be unknown to the actor that was given it."""
_CALLS_AT_ONCE = 6
_INNOCENT = ("node has died", "node it was running on is dead", "low on memory", "preempt", "ray.kill")


@dataclass(frozen=True, slots=True)
class Done:
    """An assignment is committed."""

    worker: str
    assignment: Assignment
    tally: Tally


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone. blame: its rows may be why; False for nodes lost, preemption, want of memory."""

    worker: str
    blame: bool
    reason: str


Event = Done | Lost


@dataclass(slots=True, eq=False)
class _Member:
    name: str
    actor: Any
    starting: Any
    work: dict[Any, Assignment] = field(default_factory=dict)
    pulsing: Any = None
    asked: float = 0.0
    moved: float = 0.0
    pulse: Pulse = field(default_factory=Pulse)
    mislaid: dict[int, float] = field(default_factory=dict)


class RayPool:
    """Up to `size` actors of one slot each. Work can begin with the first that is ready.

    stall: seconds that a worker with work may stand still before it is replaced.
    Raises what a starting worker raised if that is a JobError, and WorkersExhausted.
    """

    def __init__(
        self,
        build: WorkerFactory,
        slot: Slot,
        size: int,
        *,
        stall: float = 660.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build, self._slot, self.size = build, slot, size
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
        self._members: dict[str, _Member] = {}
        self._numbers = count(1)
        self._retired = Pulse()
        self._failed_starts = 0
        self._barren = 0
        self._not_before = 0.0

    @property
    def ready(self) -> list[str]:
        """The workers that can take work."""
        return [member.name for member in self._members.values() if member.starting is None]

    def pulse(self) -> Pulse:
        """The counters of all workers together, those of dead ones included."""
        return _sum([self._retired, *(member.pulse for member in self._members.values())])

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        member = self._members[worker]
        if not member.work:
            member.moved = self._clock()
        member.work[member.actor.work.remote(assignment, plans)] = assignment

    def events(self, timeout: float) -> Iterator[Event]:
        """Replaces what is missing, waits up to `timeout` seconds, and tells what has happened."""
        self._fill()
        calls = self._calls()
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
            _kill(member)
        self._members.clear()

    def _fill(self) -> None:
        while len(self._members) < self.size and self._clock() >= self._not_before:
            # Names differ over a job's whole life, so that a late answer can't be mistaken.
            name = f"worker-{next(self._numbers)}"
            actor = self._actor.remote(self._build, self._slot)
            self._members[name] = _Member(name, actor, actor.start.remote())

    def _calls(self) -> dict[Any, _Member]:
        calls: dict[Any, _Member] = {}
        for member in self._members.values():
            calls |= dict.fromkeys(member.work, member)
            calls |= {call: member for call in (member.starting, member.pulsing) if call is not None}
        return calls

    def _receive(self, member: _Member, call: Any) -> Iterator[Event]:
        if member.name not in self._members:
            return
        try:
            answer = ray.get(call)
        except (RayError, Exception) as error:
            yield from self._failed(member, _cause(error))
            return
        if call is member.starting:
            member.starting, member.moved, self._failed_starts = None, self._clock(), 0
        elif call is member.pulsing:
            self._hear(member, answer)
        else:
            yield self._finished(member, call, answer)

    def _finished(self, member: _Member, call: Any, tally: Tally) -> Done:
        self._barren, member.moved = 0, self._clock()
        assignment = member.work.pop(call)
        member.mislaid.pop(assignment.id, None)
        return Done(member.name, assignment, tally)

    def _failed(self, member: _Member, error: BaseException) -> Iterator[Event]:
        if isinstance(error, JobError):
            raise error
        if isinstance(error, ActorUnavailableError):
            error = _second_opinion(member)
        blame = not _is_innocent(error)
        if member.starting is not None:
            self._drop(member)
            self._count_start(error, blame)
        else:
            yield from self._lose(member, blame, str(error) or type(error).__name__)

    def _lose(self, member: _Member, blame: bool, reason: str) -> Iterator[Event]:
        for call in tuple(member.work):
            # What was finished just before the death counts.
            with suppress(Exception):
                yield self._finished(member, call, ray.get(call, timeout=0))
        self._barren += bool(member.work) and blame
        self._drop(member)
        if self._barren >= BARREN_DEATHS:
            raise WorkersExhausted(
                f"{self._barren} workers in a row died without finishing any rows: {reason}"
            )
        yield Lost(member.name, blame, reason)

    def _drop(self, member: _Member) -> None:
        del self._members[member.name]
        self._retired = _sum([self._retired, _at_rest(member.pulse)])
        _kill(member)

    def _count_start(self, error: BaseException, blame: bool) -> None:
        self._failed_starts += blame
        self._not_before = self._clock() + FIRST_PAUSE * 2 ** min(self._failed_starts, 5)
        if self._failed_starts < STARTS:
            return
        if not self.ready:
            raise WorkersExhausted(f"{self._failed_starts} workers in a row died while starting: {error}")
        # There is no room for more: go on with those that run.
        self.size, self._failed_starts = len(self._members), 0

    def _hear(self, member: _Member, beat: Heartbeat) -> None:
        now = self._clock()
        member.pulsing = None
        if beat.pulse != member.pulse:
            member.pulse, member.moved = beat.pulse, now
        unknown = {a.id for a in member.work.values() if a.id not in beat.holding}
        member.mislaid = {id: member.mislaid.get(id, now) for id in unknown}

    def _watch(self) -> Iterator[Event]:
        now = self._clock()
        for member in [member for member in self._members.values() if member.starting is None]:
            if member.pulsing is not None and now - member.asked > SILENCE:
                yield from self._lose(member, True, f"no life sign for {SILENCE:.0f} s")
            elif member.work and now - member.moved > self._stall:
                yield from self._lose(member, True, f"no progress for {self._stall:.0f} s")
            elif any(now - since > MISLAID for since in member.mislaid.values()):
                yield from self._lose(member, False, "an assignment was lost on its way")
            elif member.pulsing is None and now - member.asked > PULSE_EVERY:
                member.pulsing, member.asked = member.actor.pulse.remote(), now


def _kill(member: _Member) -> None:
    with suppress(RayError, ValueError):
        ray.kill(member.actor, no_restart=True)


def _cause(error: BaseException) -> BaseException:
    """What was raised inside an actor, or the error that took the actor away."""
    return error.cause if isinstance(error, RayTaskError) and error.cause else error


def _second_opinion(member: _Member) -> BaseException:
    """Why an actor is out of reach, which Ray may know only a little later."""
    try:
        ray.get(member.actor.pulse.remote(), timeout=5)
    except (RayError, Exception) as error:
        return error
    return ConnectionError("a call was lost on its way, ray.kill ends the actor")


def _is_innocent(error: BaseException) -> bool:
    """Whether the machine, not the rows, is why a worker died."""
    if isinstance(error, RayActorError) and error.preempted:
        return True
    return isinstance(error, RayError | ConnectionError) and any(sign in str(error) for sign in _INNOCENT)


def _sum(pulses: list[Pulse]) -> Pulse:
    return Pulse(**{f.name: sum(getattr(pulse, f.name) for pulse in pulses) for f in fields(Pulse)})


def _at_rest(pulse: Pulse) -> Pulse:
    return Pulse(**{f.name: getattr(pulse, f.name) for f in fields(Pulse)} | {"running": 0, "waiting": 0})
