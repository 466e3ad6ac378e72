"""Many faults in one job. A seed decides which: `pytest tests/faults -m soak --seed N`."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.disk import Disk
from tests.faults.driver import GAVE_UP
from tests.faults.lossy import Losses
from tests.faults.machines import Machines, kill, until
from tests.faults.resume import check, resumed
from tests.faults.truth import assert_whole

CONSTANTS = {"SILENCE": 5.0, "MISLAID": 3.0, "_STALL_SLACK": 3.0}
RUNS = 40
ENDINGS = (GAVE_UP, -signal.SIGKILL, -signal.SIGTERM)
"""How a driver may end that does not end its job; by SIGTERM if it is told a second time while it stops."""


class Soak:
    """A job, and the faults that befall it in the order of `plan`."""

    def __init__(self, case: Case, machines: Machines, seed: int) -> None:
        self.case, self.machines, self.chance = case, machines, random.Random(seed)
        self.bad = self._fill()
        self.losses = Losses(
            *self.chance.choice([(0, 0, 0), (0.05, 0, 0), (0, 0.05, 0), (0, 0, 0.01)]), seed=seed
        )
        self.disk = Disk("EIO", self.chance.choice([0.0, 0.05, 0.15]), seed)
        kinds = list(self._faults())
        self.plan = [(self.chance.uniform(0.1, 2), self.chance.choice(kinds)) for _ in range(8)]

    def describe(self) -> str:
        faults = ", ".join(f"{pause:.1f} s {kind}" for pause, kind in self.plan)
        return f"{self.case.rows}, bad {sorted(self.bad)}, {self.losses}, {self.disk}: {faults}"

    def run(self) -> None:
        self._ensure_driver()
        for pause, kind in self.plan:
            until(self._at_work, 120, "rows are answered")
            time.sleep(pause)
            self._faults()[kind]()
            self._ensure_driver()
        self.case.log.hurry()
        for _ in range(RUNS):
            status = self.case.drivers[-1].wait(180)
            if status == 0:
                return
            assert status in ENDINGS, self.case.drivers[-1].tail
            self._ensure_driver()
        raise AssertionError(f"{RUNS} runs did not end the job:\n{self.case.drivers[-1].printed}")

    def _fill(self) -> frozenset[str]:
        bad = set()
        for shard in range(self.chance.randint(2, 5)):
            rows = self.chance.choice([0, 1, 40, 300, 1200, 3000])
            orders = {}
            if rows and self.chance.random() < 0.5:
                row = self.chance.randrange(rows)
                orders[row] = self.chance.choice(
                    ["KILL", "SEGFAULT", "ONCE KILL", "ONCE HANG", "ONCE FREEZE"]
                )
                if not orders[row].startswith("ONCE"):
                    bad.add(f"s{shard}-{row}")
            self.case.shard(f"s{shard}", rows, orders)
        self.case.shard("long", 6000)
        return frozenset(bad)

    def _faults(self) -> dict[str, Callable[[], None]]:
        return {
            "an actor is killed": lambda: self._signal(signal.SIGKILL),
            "an actor is stopped": lambda: self._signal(signal.SIGSTOP),
            "another actor is killed": lambda: self._signal(signal.SIGKILL),
            "all stopped ones go on": self._continue,
            "a node is told to go": self._drain_node,
            "a task is killed": self._kill_task,
            "a node is replaced": self._replace_node,
            "the driver is killed": lambda: self.case.drivers[-1].kill(),
            "the driver is told to stop": lambda: self.case.drivers[-1].kill(signal.SIGTERM),
        }

    def _ensure_driver(self) -> None:
        """Starts the job again if its driver was killed or gave up, though not if it has ended well."""
        drivers = self.case.drivers
        if not drivers or (not drivers[-1].running and drivers[-1].wait(0) != 0):
            calm = len(drivers) > RUNS // 2
            disk = Disk() if calm else self.disk
            resumed(
                self.case,
                job={"retry": {"row_deadline": 1}},
                seconds=0.004,
                constants=CONSTANTS,
                losses=self.losses,
                disk=disk,
            )

    def _at_work(self) -> bool:
        """Whether a fault would hit something: rows have been answered for this driver, or it has ended."""
        driver = self.case.drivers[-1]
        return bool(self.case.log.answered(driver.order.run)) or not driver.running

    def _actors(self) -> list[int]:
        born = {record["pid"] for record in self.case.log.events("born")}
        return sorted(born & set(self.machines.processes()))

    def _signal(self, number: int) -> None:
        if actors := self._actors():
            kill(self.chance.choice(actors), number)

    def _continue(self) -> None:
        for pid in self._actors():
            kill(pid, signal.SIGCONT)

    def _kill_task(self) -> None:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if tasks := self.machines.processes("ray::_each"):
                kill(tasks[0])
                return

    def _replace_node(self) -> None:
        self.machines.lose(self._some_node())
        self.machines.add()

    def _drain_node(self) -> None:
        self.machines.drain(self._some_node(), 30)
        self.machines.add()

    def _some_node(self) -> str:
        return self.chance.choice([node for node in self.machines.nodes if node not in self.machines.going])


@pytest.mark.soak
def test_a_job_survives_a_mixture_of_faults(case: Case, machines: Machines, seed: int, tmp_path: Path):
    soak = Soak(case, machines, seed)
    print(f"\nseed {seed}: {soak.describe()}")
    began = time.monotonic()
    with case.watch() as watcher:
        soak.run()
    print(
        f"{time.monotonic() - began:.0f} s, {len(case.drivers)} drivers, {case.log.redone()} rows redone, "
        f"{len(case.log.events('born'))} workers"
    )
    check(case)
    assert_whole(case, watcher, crashed=soak.bad)
