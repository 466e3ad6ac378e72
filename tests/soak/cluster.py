"""The machines that a job runs on: processes come to life there, are lost with them, or live on unheard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.soak.weather import Weather
from tests.soak.world import Process, World

NOTICE = 30.0
"""Seconds from a machine's notice to its end."""
SILENCE = 15.0
"""Seconds after which a process that gives no life sign is given up."""


@dataclass(eq=False)
class Machine:
    """slots: workers that it has room for. back: when a lost machine is replaced. ends: of a drained one."""

    name: str
    slots: int
    back: float = 0.0
    ends: float | None = None
    processes: list[Process] = field(default_factory=list)


class Cluster:
    """Machines of one driver, to which the weather happens as well."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world, self.weather = world, weather
        chance = world.random
        slots = [chance.choice([1, 1, 2, 3]) for _ in range(chance.choice([1, 1, 2, 3]))]
        self.machines = [Machine(f"machine-{number}", count) for number, count in enumerate(slots)]
        self._fate = world.process("operator", "fate")
        world.start(self._fate, "fate", self._happen)

    def staying(self) -> list[Machine]:
        """The machines that are there and will stay."""
        return [m for m in self.machines if m.ends is None and m.back <= self.world.now]

    def process(self, kind: str, name: str, machine: Machine, phase: int) -> Process:
        """A new process on a machine."""
        process = self.world.process(kind, name, phase)
        machine.processes.append(process)
        return process

    def place(self) -> Machine | None:
        """Where a chore can run."""
        staying = self.staying()
        return self.world.random.choice(staying) if staying else None

    def gone(self, process: Process) -> tuple[bool, str] | None:
        """Whether a process that died or fell silent has been noticed to: with blame or not, and why."""
        now = self.world.now
        if process.dead:
            return (process.blame, "it died") if now - process.died > 0.5 else None
        if process.cut is not None:
            return (False, "its node has died") if now - process.cut > 1.0 else None
        if process.frozen_since is not None and process.frozen_until > now:
            return (True, "no life sign") if now - process.frozen_since > SILENCE else None
        return None

    def end(self, process: Process) -> None:
        """Kills a process that is given up, if it can be reached: else it lives on, and commits at last."""
        world, chance = self.world, self.world.random
        if process.dead or process.cut is not None:
            return
        if process.frozen_until > world.now and chance.random() < 0.8:
            world.count("zombie", process.name)
            process.cut = world.now
        elif chance.random() < 0.6:
            world.kill(process)
        else:
            self._later(chance.uniform(0.0, 5.0), lambda: world.kill(process))

    def close(self) -> None:
        """The driver has ended, and so do its processes."""
        self.world.kill(self._fate)
        for machine in self.machines:
            for process in machine.processes:
                self.end(process)

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        self.world.start(self.world.operator.process, "later", action, seconds)

    def _happen(self) -> None:
        while True:
            self.world.sleep(1.0)
            for machine in self.machines:
                self._befall(machine)

    def _befall(self, machine: Machine) -> None:
        world, chance = self.world, self.world.random
        if machine.back > world.now:
            return
        if machine.ends is not None and machine.ends <= world.now:
            self._lose(machine)
        elif machine.ends is None and self.weather.strikes("drain"):
            world.note("drained")
            machine.ends = world.now + NOTICE
        elif self.weather.strikes("node"):
            self._lose(machine)
        elif self.weather.strikes("memory") and (alive := [p for p in machine.processes if not p.dead]):
            world.note("out of memory")
            world.kill(chance.choice(alive))

    def _lose(self, machine: Machine) -> None:
        """The machine is gone for the driver; its processes may not know."""
        world, chance = self.world, self.world.random
        unreachable = chance.random() < 0.4
        world.note("machine lost", "but alive" if unreachable else "")
        for process in machine.processes:
            if process.dead or process.cut is not None:
                continue
            if unreachable:
                process.cut = world.now
                world.count("zombie", process.name)
            else:
                world.kill(process)
        machine.processes.clear()
        machine.ends, machine.back = None, world.now + chance.uniform(0.0, 20.0)
