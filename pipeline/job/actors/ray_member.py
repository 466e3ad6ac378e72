"""One actor of the pool: the calls that are under way to it, and what is known of its health."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from pipeline.input.shards import ShardPlan
from pipeline.job.actors.last_words import last_words_on
from pipeline.job.actors.row_actor import Heartbeat, Stage
from pipeline.job.assignment import Assignment
from pipeline.pulse import Pulse

PULSE_EVERY = 1.0
SILENCE = 45.0
"""Seconds without an answer after which an actor counts as dead."""
MISLAID = 20.0
"""Seconds that an assignment may be unknown to the actor that was given it."""
START = 3600.0
"""Seconds that an actor may take for its start, the download of a model included."""
_FULL = "low on memory"
_VANISHED = "connection error code"
_EXIT_CODE = re.compile(r"exit code (\d+)")
_INNOCENT = (
    "node has died",
    "node it was running on is dead",
    "owner has died",
    _FULL,
    "preempt",
    "ray.kill",
)


@dataclass(frozen=True, slots=True)
class Ailment:
    """Why an actor has to be replaced; blame and memory as in `pool.Lost`."""

    blame: bool
    reason: str
    memory: bool = False


@dataclass(slots=True, eq=False)
class Member:
    """An actor. starting, work, pulsing: calls under way. node: hexadecimal id, "" until it is heard of.

    pid: its process there. asked, moved: when it was last asked for life signs, and when it last made
    progress. alive: its last life sign was given later than this.
    """

    name: str
    actor: Any
    moved: float
    alive: float
    starting: Any = None
    work: dict[Any, Assignment] = field(default_factory=dict)
    node: str = ""
    pid: int = 0
    kernels: str = ""
    pulse: Pulse = field(default_factory=Pulse)
    _pulsing: Any = None
    _asked: float = 0.0
    _stage: Stage = "new"
    _mislaid: dict[int, float] = field(default_factory=dict)

    def start(self) -> None:
        self.starting = self.actor.start.remote()

    def started(self, now: float) -> None:
        self.starting, self.moved = None, now

    def submit(self, assignment: Assignment, plans: dict[str, ShardPlan], now: float) -> None:
        if not self.work:
            self.moved = now
        self.work[self.actor.work.remote(assignment, plans)] = assignment

    def finish(self, call: Any, now: float) -> Assignment:
        """Ends a call of `work`."""
        self.moved = now
        assignment = self.work.pop(call)
        self._mislaid.pop(assignment.id, None)
        return assignment

    @property
    def calls(self) -> list[Any]:
        """All calls under way."""
        return [*self.work, *(call for call in (self.starting, self._pulsing) if call is not None)]

    def listen(self, now: float) -> None:
        """Asks for life signs, unless that was just done."""
        if not self.node and now - self._asked > SILENCE:
            # Lost on its way, or the actor still waits for a machine.
            self._pulsing = None
        if self._pulsing is None and now - self._asked > PULSE_EVERY:
            self._pulsing, self._asked = self.actor.pulse.remote(), now

    def is_pulse(self, call: Any) -> bool:
        return call is self._pulsing

    def hear(self, beat: Heartbeat, now: float) -> None:
        self._pulsing, self.alive = None, self._asked
        if not self.node:
            # Until here it may only have waited for a machine with room.
            self.node, self.pid, self.moved = beat.node, beat.pid, now
        self._stage, self.kernels = beat.stage, beat.kernels
        if self.starting is not None and beat.stage == "ready":
            # Its answer may have been lost on the way.
            self.started(now)
        if beat.pulse != self.pulse:
            self.pulse, self.moved = beat.pulse, now
        unknown = {a.id for a in self.work.values() if a.id not in beat.holding}
        self._mislaid = {id: self._mislaid.get(id, now) for id in unknown}

    def ailment(self, now: float, stall: float) -> Ailment | None:
        """stall: seconds that it may stand still with work."""
        if not self.node and self.starting is not None:
            return None
        still = now - self.moved
        if self._pulsing is not None and now - self._asked > SILENCE:
            return Ailment(True, f"no life sign for {SILENCE:.0f} s")
        if self.starting is not None:
            return self._late_start(still)
        if self.work and still > stall:
            return Ailment(True, f"no progress for {stall:.0f} s")
        if any(now - since > MISLAID for since in self._mislaid.values()):
            return Ailment(False, "an assignment was lost on its way")
        return None

    def _late_start(self, still: float) -> Ailment | None:
        if self._stage == "new" and still > MISLAID:
            return Ailment(False, "its start was lost on its way")
        return Ailment(True, f"not ready after {START:.0f} s") if still > START else None

    def diagnose(self, error: BaseException) -> Ailment:
        """Why a call failed: the rows, or the machine."""
        if isinstance(error, ActorUnavailableError):
            error = self._second_opinion()
        text = str(error) or type(error).__name__
        innocent = _is_innocent(error)
        reason = text if innocent else self._reason(error, text)
        return Ailment(not innocent, reason, memory=innocent and _FULL in text)

    def _reason(self, error: BaseException, text: str) -> str:
        """In one line, where Ray only knows that the process is gone."""
        if not isinstance(error, RayActorError):
            return text
        if words := last_words_on(self.node, self.pid) if self.pid else "":
            return f"its process died of {words}"
        if code := _EXIT_CODE.search(text):
            return f"its process ended by itself, with exit code {code[1]}"
        if _VANISHED in text:
            return "its process was killed (SIGKILL), or ended by itself without a word"
        return " ".join(text.split("\n")[-1:]) or text

    def kill(self) -> None:
        with suppress(RayError, ValueError):
            ray.kill(self.actor, no_restart=True)

    def _second_opinion(self) -> BaseException:
        """Why it is out of reach, which Ray may know only a little later."""
        try:
            ray.get(self.actor.pulse.remote(), timeout=5)
        except (RayError, Exception) as error:
            return error
        return ConnectionError("a call was lost on its way, ray.kill ends the actor")


def cause(error: BaseException) -> BaseException:
    """What was raised inside an actor, or the error that took the actor away."""
    return error.cause if isinstance(error, RayTaskError) and error.cause else error


def _is_innocent(error: BaseException) -> bool:
    """Whether the machine, not the rows, is why a worker died."""
    if isinstance(error, RayActorError) and error.preempted:
        return True
    return isinstance(error, RayError | ConnectionError) and any(sign in str(error) for sign in _INNOCENT)
