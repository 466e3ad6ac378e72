"""One seed from its first driver to the last word of its last zombie, and what must be true then."""

from __future__ import annotations

import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.output.records import WORK
from tests.soak.driver import Driver
from tests.soak.scene import Scene
from tests.soak.truth import problems
from tests.soak.world import Broken

DRIVERS = 80
"""More than any budget of faults can end."""


@dataclass
class Outcome:
    """problem: "" where every promise was kept. counts: of the faults that struck. log: one line an event."""

    seed: int
    problem: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)


def soak(seed: int) -> Outcome:
    """Plays one seed."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        return Soak(seed, Path(folder)).play()


class Soak:
    """folder: an empty one."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._folder, self._scene = seed, str(folder), Scene(seed, folder)
        self._world, self._case = self._scene.world, self._scene.case
        self._drivers = self._retries = 0

    def play(self) -> Outcome:
        problem = ""
        with self._scene.set():
            try:
                self._play()
            except Broken as broken:
                problem = str(broken)
            except Exception:
                problem = traceback.format_exc()
            finally:
                self._world.close()
        lines = (f"{now:10.3f} {name:24} {event:14} {detail}" for now, name, event, detail in self._world.log)
        # The folder is another one at each replay.
        log = [line.replace(self._folder, "") for line in lines]
        return Outcome(self._seed, problem, self._world.counts, log)

    def _play(self) -> None:
        chance = self._world.random
        self._finish("run")
        while chance.random() < 0.3:
            self._change()
            self._finish("run")
        if chance.random() < 0.2:
            self._finish("run")
        self._retries = chance.choice([0, 0, 1, 1, 2])
        for _ in range(self._retries):
            self._finish("retry")
        self._scene.weather.clear()
        self._outlive_zombies()
        self._check()
        # A zombie may have made the work folder anew. It's empty, and goes when the job is looked at again.
        self._finish("run")
        if self._scene.on_disk and Path(self._case.output, WORK).exists():
            self._world.broken(f"{WORK} is still there")
        self._check()

    def _finish(self, command: str) -> None:
        """Drivers, one after the other, until one ends well."""
        while True:
            self._drivers += 1
            if self._drivers > DRIVERS:
                self._world.broken("the job doesn't end")
            if self._drivers > 1 and self._retries == 0 and self._world.random.random() < 0.05:
                self._change()
            driver = Driver(self._scene, command, self._drivers)
            driver.play()
            self._world.sleep(self._world.random.choice([0.0, 0.01, 1.0, 30.0]))
            if driver.finished:
                return

    def _change(self) -> None:
        """Somebody changes the input."""
        self._world.count("change", self._case.change())
        self._scene.witness.changed()

    def _outlive_zombies(self) -> None:
        while any(process.simulated for process in self._world.alive()):
            self._world.sleep(10.0)

    def _check(self) -> None:
        with self._world.aloof():
            found = list(problems(self._case, self._retries))
        if found:
            self._world.broken("; ".join(found))
