"""Which faults befall a job, and how often: each seed has a weather of its own."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, fields

from tests.soak.world import Process, World

COMMITS = {"link", "replace", "put", "unlink", "rmdir", "delete"}
"""Operations around which most can go wrong: faults at them are likelier."""
_FIRMNESS = 5


@dataclass(frozen=True)
class Rates:
    """How likely each fault is: at each operation, for each message, or in a second of the cluster's life."""

    kill: float = 0.0
    freeze: float = 0.0
    error: float = 0.0
    late_error: float = 0.0
    kill_driver: float = 0.0
    stop_driver: float = 0.0
    lost_call: float = 0.0
    lost_answer: float = 0.0
    memory: float = 0.0
    node: float = 0.0
    drain: float = 0.0

    @classmethod
    def drawn(cls, random: random.Random) -> Rates:
        """Some faults at all, some often, some hardly ever: extremes find more than averages."""
        most = {
            "lost_call": 0.3,
            "lost_answer": 0.3,
            "stop_driver": 0.05,
            "memory": 0.5,
            "node": 0.2,
            "drain": 0.2,
        }
        chosen = [f.name for f in fields(cls) if random.random() < 0.45]
        return cls(**{name: most.get(name, 0.02) * 10 ** -random.uniform(0, 1.5) for name in chosen})


class Weather:
    """Strikes until `budget` faults have struck; then the sky is clear, and the job has to end."""

    def __init__(self, world: World) -> None:
        self._world, self._random = world, world.random
        self.rates = Rates.drawn(world.random)
        self.budget = world.random.choice([0, 5, 10, 20, 40])
        self.switch = world.random.choice([0.02, 0.1, 0.3, 0.7])

    def strikes(self, fault: str, factor: float = 1.0) -> bool:
        """Whether this fault strikes now; it is counted then."""
        rate = getattr(self.rates, fault) * factor
        if not rate or self.budget <= 0 or self._random.random() >= rate:
            return False
        self.budget -= 1
        self._world.counts[fault] += 1
        return True

    def clear(self) -> None:
        """No fault strikes any more."""
        self.budget = 0
        for process in self._world.processes.values():
            process.failing = 0

    def before(self, operation: str, name: str) -> None:
        """What befalls whoever is about to do an operation. Raises OSError, or Killed."""
        world, process = self._world, self._world.current.process
        world.step()
        world.note(operation, name)
        factor = 5.0 if operation in COMMITS else 1.0
        if self.strikes("kill_driver" if process.kind == "driver" else "kill", factor):
            world.note("killed")
            world.kill(process, blame=True)
            world.die_if_dead()
        if process.kind != "driver" and self.strikes("freeze", factor):
            seconds = 0.1 * 10 ** self._random.uniform(0, 3.2)
            world.note("frozen", f"{seconds:.1f} s")
            world.freeze(process, seconds)
            world.pause()
        elif self._random.random() < self.switch:
            world.pause()
        world.die_if_dead()
        if operation != "answer":
            self._fail(process, factor)

    def after(self, operation: str) -> None:
        """An operation that was done may still be reported as failed."""
        if operation in COMMITS and self.strikes("late_error"):
            self._world.note("late error")
            raise OSError(errno.EIO, f"{operation}: done, but its answer was lost")

    def _fail(self, process: Process, factor: float) -> None:
        if self.strikes("error", factor):
            # One failure passes, many in a row don't.
            process.failing = self._random.choice([1, 1, 1, 2, _FIRMNESS, 3 * _FIRMNESS])
        if process.failing:
            process.failing -= 1
            number = self._random.choice([errno.EIO, errno.ENOSPC, errno.ETIMEDOUT])
            self._world.note("error", errno.errorcode[number])
            raise OSError(number, os.strerror(number))
