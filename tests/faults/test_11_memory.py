"""Fault 11: a machine's memory is full, and Ray kills the actor."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.driver import GAVE_UP
from tests.faults.machines import Machines, until
from tests.faults.truth import assert_whole

ROOM = 2 << 30


@pytest.fixture
def watched() -> Iterator[Machines]:
    """A cluster that kills workers when 2 GiB more than now are in use."""
    machines = Machines(())
    share = (memory("MemTotal") - memory("MemAvailable") + ROOM) / memory("MemTotal")
    machines.add(2, {"RAY_memory_usage_threshold": f"{share:.4f}", "RAY_memory_monitor_refresh_ms": "100"})
    yield machines
    machines.close()


@pytest.mark.slow
def test_no_row_is_blamed_when_a_machine_runs_out_of_memory(tmp_path: Path, watched: Machines):
    case = Case(tmp_path, watched.address)
    case.shard("s", 900, dict.fromkeys((50, 400, 750), "ONCE EAT"))
    with case.watch() as watcher:
        case.run(seconds=0.002)
    print("\n" + "\n".join(line for line in case.drivers[0].printed.splitlines() if "is gone" in line))
    assert len(case.log.events("obeyed")) == 3
    assert_whole(case, watcher)


@pytest.mark.slow
def test_only_a_row_that_fills_the_memory_each_time_bears_an_error(tmp_path: Path, watched: Machines):
    case = Case(tmp_path, watched.address)
    case.shard("s", 100, {50: "EAT"})
    with case.watch() as watcher:
        case.run(seconds_left=200, seconds=0.002)
    print(f"\n{len(case.log.events('obeyed'))} kills")
    assert_whole(case, watcher, crashed=frozenset({"s-50"}))


@pytest.mark.slow
def test_no_row_is_blamed_when_something_else_fills_the_memory_again_and_again(tmp_path, watched):
    case = Case(tmp_path, watched.address)
    case.shard("s", 8)
    with case.watch() as watcher:
        driver = case.start(seconds=1.0)
        for number in range(10):
            until(lambda: at_work(case, watched), 60, "an actor at work")
            with filled(ROOM + (1 << 29)):
                until(lambda seen=number: kills(case) > seen or not driver.running, 30, "a kill")
        case.log.hurry()
        assert driver.wait(120) in (0, GAVE_UP), driver.tail
        if driver.wait(0):
            case.run(seconds=0)
    assert_whole(case, watcher)


def at_work(case: Case, machines: Machines) -> bool:
    """Whether an actor that lives has begun with rows."""
    begun = {record["pid"] for record in case.log.events("begun")}
    return bool(begun & set(machines.processes())) or not case.drivers[-1].running


def kills(case: Case) -> int:
    return case.drivers[0].printed.count("running low on memory")


@contextmanager
def filled(size: int) -> Iterator[None]:
    """So much memory is in use meanwhile, by this process."""
    with mmap.mmap(-1, size) as held:
        for start in range(0, size, mmap.PAGESIZE):
            held[start] = 1
        yield


def memory(name: str) -> int:
    """Bytes, from the kernel's table."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
