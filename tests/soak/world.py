"""A simulated world: threads of which one runs at a time, a clock of their own, and a log of what they did.

Whoever runs goes on until it pauses; then the seed decides who is next. So the same seed gives the same
run, whatever the machine does meanwhile.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK = 0.001
"""Simulated seconds that every operation takes."""
BEGINNING = 1_800_000_000.0
"""The Unix time at which each world begins."""


class Killed(BaseException):
    """Unwinds the threads of a dead process. Nothing that they still do on the way has an effect."""


class Broken(AssertionError):
    """A promise of the pipeline was broken, or the job doesn't end."""


class Process:
    """What dies together, as a worker with all its threads. kind: "operator", "driver", "worker", "chore".

    phase: the number of the retry that it belongs to. frozen_since: None unless it was stopped. cut: since
    when its driver doesn't hear of it any more.
    """

    def __init__(self, kind: str, name: str, number: int, phase: int = 0) -> None:
        self.kind, self.name, self.number, self.phase = kind, name, number, phase
        self.dead = False
        self.blame = False
        self.died = 0.0
        self.frozen_since: float | None = None
        self.frozen_until = 0.0
        self.cut: float | None = None
        self.failing = 0

    @property
    def simulated(self) -> bool:
        """Whether faults may befall it. The operator, who starts everything, is spared."""
        return self.kind != "operator"


class Actor:
    """A thread of a process. wake: when it can go on."""

    def __init__(self, process: Process, name: str, action: Callable[[], object], wake: float) -> None:
        self.process, self.name, self.action, self.wake = process, name, action, wake
        self.error: BaseException | None = None
        self.done = False
        self.thread: threading.Thread | None = None
        self.baton = threading.Lock()
        self.baton.acquire()


class World:
    """limit: operations after which the job is taken to hang."""

    def __init__(self, seed: int, limit: int = 60_000) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.log: list[tuple[float, str, str, str]] = []
        self.counts: Counter[str] = Counter()
        self.problem: Broken | None = None
        self._steps_left = limit
        self._aloof = False
        self._numbers = 0
        self._ended: list[threading.Thread] = []
        self.processes: dict[int, Process] = {}
        operator = self.process("operator", "operator")
        self.operator = self.current = Actor(operator, "operator", lambda: None, 0.0)
        self._ident = threading.get_ident()
        self._actors = [self.operator]

    def process(self, kind: str, name: str, phase: int = 0) -> Process:
        """A new process, alive, without threads."""
        self._numbers += 1
        process = Process(kind, name, self._numbers, phase)
        self.processes[process.number] = process
        return process

    def start(self, process: Process, name: str, action: Callable[[], object], after: float = 0.0) -> Actor:
        """A new thread of a process; it begins `after` so many seconds."""
        actor = Actor(process, name, action, self.now + after)
        actor.thread = threading.Thread(target=self._live, args=(actor,), daemon=True)
        self._actors.append(actor)
        actor.thread.start()
        return actor

    @property
    def here(self) -> Process | None:
        """The process that the calling thread belongs to; None for threads from outside of this world."""
        return self.current.process if not self._aloof and threading.get_ident() == self._ident else None

    @contextmanager
    def aloof(self) -> Iterator[None]:
        """Inside, the caller is outside of this world."""
        self._aloof = True
        try:
            yield
        finally:
            self._aloof = False

    def note(self, event: str, detail: str = "") -> None:
        self.log.append((self.now, self.current.name, event, detail))

    def count(self, event: str, detail: str = "") -> None:
        """Notes something, and counts it."""
        self.counts[event] += 1
        self.note(event, detail)

    def step(self) -> None:
        """An operation passes. Raises Killed in a dead process."""
        self.die_if_dead()
        self.now += TICK
        self._count_down()

    def die_if_dead(self) -> None:
        if self.current.process.dead or (self.problem and self.current is not self.operator):
            raise Killed

    def broken(self, problem: str) -> None:
        """Ends the simulation: a promise was broken."""
        if not self.problem:
            self.note("BROKEN", problem)
            self.problem = Broken(problem)
        self._resume(self.current)

    def sleep(self, seconds: float) -> None:
        self.current.wake = self.now + seconds
        self.pause()

    def pause(self) -> None:
        """Lets somebody go on, perhaps the caller."""
        self._count_down()
        me, chosen = self.current, self._next()
        if chosen is not me:
            self._pass_to(chosen)
            me.baton.acquire()
        self._ident = threading.get_ident()
        self._resume(me)

    def kill(self, process: Process, blame: bool = False) -> None:
        """The process does nothing any more. blame: whether its rows may be why."""
        if not process.dead:
            process.dead, process.blame, process.died = True, blame, self.now
            process.frozen_since, process.frozen_until = None, 0.0

    def freeze(self, process: Process, seconds: float) -> None:
        process.frozen_since, process.frozen_until = self.now, self.now + seconds

    def alive(self) -> list[Process]:
        """The processes that still do something, the operator aside."""
        return list({id(a.process): a.process for a in self._actors if a is not self.operator}.values())

    def close(self) -> None:
        """Ends all threads."""
        for process in self.processes.values():
            if process is not self.operator.process:
                self.kill(process)
        self.problem = None
        while len(self._actors) > 1:
            self.sleep(1.0)
        for thread in self._ended:
            thread.join()

    def _count_down(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0 and not self.problem and self.current.process.kind != "operator":
            self.broken("the job doesn't end")

    def _resume(self, me: Actor) -> None:
        if me is self.operator and self.problem:
            raise self.problem
        if self.problem or me.process.dead:
            raise Killed

    def _live(self, actor: Actor) -> None:
        actor.baton.acquire()
        self._ident = threading.get_ident()
        try:
            if not actor.process.dead and not self.problem:
                actor.action()
        except Killed:
            pass
        except BaseException as error:
            actor.error = error
        actor.done = True
        self._actors.remove(actor)
        assert actor.thread
        self._ended.append(actor.thread)
        self._pass_to(self._next())

    def _pass_to(self, actor: Actor) -> None:
        self.current = actor
        actor.baton.release()

    def _next(self) -> Actor:
        """Threads of the dead unwind first; then whoever can go on, by chance; else the clock moves."""
        if self.problem:
            return self.operator
        dead = next((actor for actor in self._actors if actor.process.dead), None)
        if dead:
            return dead
        ready = [actor for actor in self._actors if _wake(actor) <= self.now]
        if not ready:
            self.now = min(map(_wake, self._actors))
            ready = [actor for actor in self._actors if _wake(actor) <= self.now]
        return ready[0] if len(ready) == 1 else self.random.choice(ready)


def _wake(actor: Actor) -> float:
    return max(actor.wake, actor.process.frozen_until)
