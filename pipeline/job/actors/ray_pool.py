"""Actors that come and go: started, given work, watched, replaced. It decides nothing about rows."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.errors import JobError, MachineError, WorkersExhausted
from pipeline.input.shards import ShardPlan
from pipeline.job.actors.cluster import Node, Slot
from pipeline.job.actors.lookout import Lookout
from pipeline.job.actors.patience import Patience
from pipeline.job.actors.pool import Done, Event, Lost, Note, Unfit
from pipeline.job.actors.ray_member import Ailment, Member, cause
from pipeline.job.actors.row_actor import Heartbeat, RowActor, WorkerFactory
from pipeline.job.assignment import Assignment
from pipeline.pulse import Pulse
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
SAVE = 2.0
"""Seconds that actors have for their drafts when a job is stopped. `ray job stop` kills it after three."""
LAST_COMMITS = 60.0
"""Seconds that they have for drafts and the commits under way when a job ends by itself."""
LACK_SAID_AFTER = 15.0
"""Seconds without a worker that has its place, after which it is said."""
GROW_EVERY = 15.0
"""Seconds between looks for machines that have joined the cluster."""
_CALLS_AT_ONCE = 6


class RayPool:
    """As many actors of one slot each as `room` says. Work can begin with the first that is ready.

    name: the job's, for its metrics.
    room: how many actors some machines have room for; it is asked again while the job runs.
    patience: seconds without any place for a worker before the pool gives up.
    stall: seconds that a worker with work may stand still before it is replaced.
    Raises what a starting worker raised if that is a JobError, WorkersExhausted and ClusterLost.
    """

    def __init__(
        self,
        build: WorkerFactory,
        slot: Slot,
        room: Callable[[Sequence[Node]], int],
        lookout: Lookout,
        patience: float,
        *,
        name: str = "",
        stall: float = 660.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build, self._slot, self._room = build, slot, room
        self._lookout, self._patience = lookout, Patience(patience, LACK_SAID_AFTER, clock)
        self._name, self._stall, self._clock = name, stall, clock
        self._avoided: set[str] = set()
        self._members: dict[str, Member] = {}
        self._numbers = count(1)
        self._retired = Pulse()
        self._size = self._fit = room(self._places())
        self._grown = clock()
        self._failed_starts = self._lost_starts = 0
        self._failed_on: Counter[str] = Counter()
        self._barren = 0
        self._answered = False
        self._not_before = 0.0
        self._memory_full = -math.inf
        self._told: set[str] = set()

    @property
    def ready(self) -> dict[str, str]:
        """The workers that can take work: those that have started, on machines that will stay."""
        # Ray kills several at once when memory is full. One of which that isn't known yet must not be
        # given rows, as it would seem to have died of them.
        ready = (member for member in self._started() if member.alive >= self._memory_full)
        return {member.name: member.node for member in ready}

    @property
    def machines(self) -> dict[str, str]:
        return {node.id: str(node) for node in self._lookout.sight.nodes if self._slot.fits(node)}

    @property
    def kernels(self) -> dict[str, str]:
        return {member.node: member.kernels for member in self._members.values() if member.kernels}

    def avoid(self, machine: str) -> None:
        self._avoided.add(machine)
        # One that has no machine yet might get this one.
        for member in [member for member in self._members.values() if not member.node]:
            self._drop(member)
        self._size = self._fit = self._room(self._places())

    def pulse(self) -> Pulse:
        """The counters of all workers together, those of dead ones included."""
        return sum((member.pulse for member in self._members.values()), self._retired)

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        self._members[worker].submit(assignment, plans, self._clock())

    def events(self, timeout: float) -> Iterator[Event]:
        """Replaces what is missing, waits up to `timeout` seconds, and tells what has happened."""
        lack = "" if self._lookout.trouble else self._lack()
        for note in filter(None, [self._lookout.news(), self._patience.heed(lack)]):
            yield Note(note)
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
        """Ends all actors at once. Of what they had not committed, the answered rows stay as drafts."""
        self._end(SAVE)
        for member in self._members.values():
            member.kill()
        self._members.clear()

    def end(self) -> None:
        # A killed actor lives on for a moment: it could commit rows that nobody has counted.
        self._end(LAST_COMMITS)

    def _end(self, seconds: float) -> None:
        # Whatever is wrong with the cluster: what can't be saved is answered again.
        with suppress(Exception):
            ending = [member.actor.end.remote() for member in self._members.values() if member.work]
            if ending:
                ray.wait(ending, num_returns=len(ending), timeout=seconds)

    def _staying(self) -> list[Member]:
        gone = self._lookout.sight.draining | self._avoided
        return [member for member in self._members.values() if member.node not in gone]

    def _started(self) -> list[Member]:
        return [member for member in self._staying() if member.starting is None]

    def _look_around(self) -> None:
        now = self._clock()
        if now - self._grown >= GROW_EVERY:
            self._grown, fit = now, self._room(self._places())
            self._size += max(0, fit - self._fit)
            self._fit = max(fit, self._fit)

    def _places(self) -> list[Node]:
        """The machines that may be used."""
        return [node for node in self._lookout.sight.nodes if node.id not in self._avoided]

    def _lack(self) -> str:
        """Why there is no place for any worker; "" where one has its place."""
        sight = self._lookout.sight
        alive = {node.id for node in sight.nodes}
        if any(member.node in alive for member in self._members.values()):
            return ""
        staying = [node for node in self._places() if node.id not in sight.draining]
        wanted = f"{self._slot.cpus:g} CPUs and {self._slot.gpus:g} GPUs"
        if any(self._slot.fits(node) for node in staying):
            return f"no worker has started: each needs {wanted}, and others may be using them"
        there = ", ".join(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in staying[:5]) or "nothing"
        return f"no machine of the Ray cluster has {wanted} for a worker (there is {there})"

    def _fill(self) -> None:
        missing = self._size - len(self._staying()) if self._clock() >= self._not_before else 0
        for _ in range(missing):
            # Names differ over a job's whole life, so that a late answer can't be mistaken.
            name = f"worker-{next(self._numbers)}"
            actor, now = self._actor().remote(self._build, self._slot, self._name), self._clock()
            self._members[name] = Member(name, actor, moved=now, alive=now)
            self._members[name].start()

    def _actor(self) -> Any:
        remote: Any = ray.remote(RowActor)
        avoided = ", ".join(sorted(self._avoided))
        # Ray must not retry: only the coordinator knows which rows a death puts under suspicion.
        return remote.options(
            num_cpus=self._slot.cpus,
            num_gpus=self._slot.gpus,
            max_concurrency=_CALLS_AT_ONCE,
            max_restarts=0,
            max_task_retries=0,
            label_selector={"ray.io/node-id": f"!in({avoided})"} if avoided else None,
        )

    def _receive(self, member: Member, call: Any) -> Iterator[Event]:
        if member.name not in self._members:
            return
        try:
            answer = ray.get(call)
        except (RayError, Exception) as error:
            if isinstance(reason := cause(error), JobError):
                raise reason from None
            if isinstance(reason, MachineError) and member.node and member.starting is not None:
                self._drop(member)
                yield Unfit(member.node, str(reason))
                return
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
            self._failed_on.pop(member.node, None)

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
            elif member.node in self._avoided:
                self._drop(member)
                yield Lost(member.name, False, "its machine is not used any more")
            elif member.node in self._lookout.sight.draining and not member.work:
                self._drop(member)
                yield Lost(member.name, False, "its machine is about to go")
            else:
                member.listen(now)

    def _lose(self, member: Member, ailment: Ailment) -> Iterator[Event]:
        if ailment.memory:
            self._memory_full = self._clock()
        if member.starting is not None:
            self._drop(member)
            yield from self._count_start(member.node, ailment)
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
        self._retired += member.pulse.at_rest
        member.kill()

    def _count_start(self, machine: str, ailment: Ailment) -> Iterator[Event]:
        self._failed_starts += ailment.blame
        self._lost_starts += 1
        self._not_before = self._clock() + FIRST_PAUSE * 2 ** min(self._lost_starts, 5)
        self._failed_on[machine] += ailment.blame
        works = any(member.node == machine for member in self._started())
        if machine and not works and self._failed_on[machine] >= STARTS:
            self._failed_starts = 0
            yield Unfit(machine, f"{STARTS} workers in a row died while starting: {ailment.reason}")
            return
        if self._failed_starts < STARTS and self._lost_starts < LOST_STARTS:
            return
        if not self._started():
            raise WorkersExhausted(
                f"{self._lost_starts} workers in a row died while starting: {ailment.reason}"
            )
        # There is no room for more: go on with those that run.
        self._size, self._failed_starts, self._lost_starts = len(self._members), 0, 0
