"""Workers of a simulated cluster, as `pipeline.job.actors.pool.Pool` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from pipeline.errors import JobError, StorageError
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.job.actors.pool import Done, Event, Lost
from pipeline.job.assignment import Assignment
from pipeline.job.worker import Worker
from pipeline.pulse import Pulse
from pipeline.tally import Tally
from tests.soak.cluster import Cluster, Machine
from tests.soak.world import Process

MISLAID = 10.0
"""Seconds after which a worker that doesn't know of its assignment is replaced."""

Build = Callable[[Process], Worker]


@dataclass(eq=False)
class Call:
    """An assignment under way. due: when its answer arrives. mislaid: since when it's lost."""

    assignment: Assignment
    left: int
    tally: Tally = field(default_factory=Tally)
    error: Exception | None = None
    due: float | None = None
    mislaid: float | None = None


@dataclass(eq=False)
class Member:
    """A worker. ready: when it has started. started: whether the pool knows."""

    process: Process
    machine: Machine
    worker: Worker
    ready: float
    started: bool = False
    work: list[Call] = field(default_factory=list)


class SimulatedPool:
    """As many workers as the machines have room for. spared: assignments whose worker's death mustn't be
    blamed on them, since the rows would be condemned that did nothing."""

    def __init__(
        self, cluster: Cluster, build: Build, phase: int, prefix: str, spared: Callable[[Assignment], bool]
    ) -> None:
        self._cluster, self._build, self._phase, self._prefix = cluster, build, phase, prefix
        self._spared = spared
        self._world, self._weather = cluster.world, cluster.weather
        self._members: dict[str, Member] = {}
        self._numbers = count(1)
        self._avoided: set[str] = set()

    @property
    def ready(self) -> dict[str, str]:
        members = self._members.items()
        return {name: m.machine.name for name, m in members if m.started and m.machine.ends is None}

    @property
    def machines(self) -> dict[str, str]:
        return {machine.name: machine.name for machine in self._cluster.machines}

    @property
    def kernels(self) -> dict[str, str]:
        return {}

    def end(self) -> None: ...

    def avoid(self, machine: str) -> None:
        self._world.count("avoided", machine)
        self._avoided.add(machine)

    def pulse(self) -> Pulse:
        return Pulse()

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        member, call = self._members[worker], Call(assignment, len(assignment.chunks))
        member.work.append(call)
        self._world.note("submit", f"{assignment.id} to {worker}: {_shown(assignment)}")
        if member.process.cut is not None or self._weather.strikes("lost_call"):
            call.mislaid = self._world.now
            return
        for chunk in assignment.chunks:
            self._start(member, call, plans[chunk.shard], chunk)
        for after in (0.1, 0.4, 2.0):
            name = f"{member.process.name}/drafts"
            self._world.start(member.process, name, lambda: self._save(member), after)

    def events(self, timeout: float) -> Iterator[Event]:
        world = self._world
        deadline = world.now + timeout
        self._fill()
        while True:
            some = False
            for event in self._happened():
                some = True
                world.note(type(event).__name__, event.worker)
                yield event
            if some or world.now >= deadline:
                return
            world.sleep(min(0.1, deadline - world.now))

    def _fill(self) -> None:
        for machine in self._cluster.staying():
            if machine.name in self._avoided:
                continue
            here = sum(member.machine is machine for member in self._members.values())
            for _ in range(machine.slots - here):
                # Names differ over a job's whole life, as those of the real pool do over a run's.
                name = f"{self._prefix}-worker-{next(self._numbers)}"
                process = self._cluster.process("worker", name, machine, self._phase)
                ready = self._world.now + self._world.random.uniform(0.1, 3.0)
                self._members[name] = Member(process, machine, self._build(process), ready)

    def _start(self, member: Member, call: Call, plan: ShardPlan, chunk: Chunk) -> None:
        name = f"{member.process.name}/{call.assignment.id}"
        after = self._world.random.uniform(0.0, 0.05)
        self._world.start(member.process, name, lambda: self._process(member, call, plan, chunk), after)

    def _save(self, member: Member) -> None:
        """What the thread of a worker's process does that keeps drafts."""
        with suppress(StorageError):
            member.worker.save()

    def _process(self, member: Member, call: Call, plan: ShardPlan, chunk: Chunk) -> None:
        """What a thread of the worker's process does."""
        assignment, worker = call.assignment, member.worker
        try:
            if assignment.control:
                cost = worker.prove(plan, chunk)
            else:
                cost = worker.process(plan, chunk, assignment.attempt, assignment.condemned)
            call.tally += cost
        except Exception as error:
            self._world.note("failed", f"{chunk}: {error!r}")
            call.error = call.error or error
        call.left -= 1
        if call.left:
            return
        if self._weather.strikes("lost_answer"):
            call.mislaid = self._world.now
        elif member.process.cut is None:
            call.due = self._world.now + self._world.random.uniform(0.0, 0.1)

    def _happened(self) -> Iterator[Event]:
        for name, member in list(self._members.items()):
            member.started = member.started or (not member.process.dead and member.ready <= self._world.now)
            for call in [call for call in member.work if self._is_due(call)]:
                if call.error:
                    self._fail(name, call.error)
                yield self._done(name, member, call)
            if name in self._members:
                yield from self._watch(name, member)

    def _is_due(self, call: Call) -> bool:
        return call.due is not None and call.due <= self._world.now

    def _done(self, name: str, member: Member, call: Call) -> Done:
        member.work.remove(call)
        return Done(name, call.assignment, call.tally)

    def _watch(self, name: str, member: Member) -> Iterator[Event]:
        now = self._world.now
        if gone := self._cluster.gone(member.process):
            yield from self._lose(name, member, *gone)
        elif any(call.mislaid is not None and now - call.mislaid > MISLAID for call in member.work):
            yield from self._lose(name, member, False, "an assignment was lost on its way")
        elif member.machine.name in self._avoided:
            yield from self._lose(name, member, False, "its machine is not used any more")
        elif member.machine.ends is not None and not member.work:
            yield from self._lose(name, member, False, "its machine is about to go")

    def _fail(self, name: str, error: Exception) -> None:
        if isinstance(error, JobError):
            raise error
        # Nothing asks for it, so it can only be a fault of the pipeline's.
        self._world.broken(f"{name} raised {error!r}")

    def _lose(self, name: str, member: Member, blame: bool, reason: str) -> Iterator[Event]:
        for call in tuple(member.work):
            # What was finished just before the death counts.
            if self._is_due(call) and not call.error:
                yield self._done(name, member, call)
        del self._members[name]
        self._cluster.end(member.process)
        if member.started:
            blame = blame and not any(self._spared(call.assignment) for call in member.work)
            yield Lost(name, blame, reason)


def _shown(assignment: Assignment) -> str:
    return " ".join(f"{chunk.shard}[{chunk.start}:{chunk.stop}]" for chunk in assignment.chunks)
