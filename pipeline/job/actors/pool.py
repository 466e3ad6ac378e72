"""The workers of a job as its run sees them: who can take work, and what has become of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.input.shards import ShardPlan
from pipeline.job.assignment import Assignment
from pipeline.pulse import Pulse
from pipeline.tally import Tally


@dataclass(frozen=True, slots=True)
class Done:
    """An assignment is committed."""

    worker: str
    assignment: Assignment
    tally: Tally


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone. blame: its rows may be why; False for nodes lost, preemption, want of memory.

    memory: it was killed for want of memory, which its rows or anybody else may have used up.
    """

    worker: str
    blame: bool
    reason: str
    memory: bool = False


@dataclass(frozen=True, slots=True)
class Unfit:
    """No worker can start on a machine, whatever its rows are."""

    machine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line about the workers' machines that a person should read. Each comes once."""

    text: str


Event = Done | Lost | Unfit | Note


class Pool(Protocol):
    """Workers that come and go. What is submitted to one ends as Done, or with its worker as Lost."""

    @property
    def ready(self) -> Mapping[str, str]:
        """The workers that can take work, and the machine of each."""

    @property
    def machines(self) -> Mapping[str, str]:
        """The machines that have room for workers, taken or free, and what people call them."""

    @property
    def kernels(self) -> Mapping[str, str]:
        """By machine, the id of the kernels that its workers use. Absent: not known."""

    def avoid(self, machine: str) -> None:
        """Ends the workers on a machine, and starts none there any more."""

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        """plans: of all the assignment's shards, by name."""

    def events(self, timeout: float) -> Iterator[Event]:
        """Waits up to `timeout` seconds, and tells what has happened. Raises JobError."""

    def end(self) -> None:
        """Lets the workers keep what they have. Afterwards they commit nothing, so that it can be counted."""

    def pulse(self) -> Pulse:
        """The counters of all workers together, those of dead ones included."""


class Assembly(Protocol):
    """Puts finished shards together, somewhere else."""

    @property
    def idle(self) -> bool: ...
    def put(self, plan: ShardPlan) -> None: ...

    def done(self) -> list[Tally]:
        """The shards that have been committed since the last call. Raises JobError."""
