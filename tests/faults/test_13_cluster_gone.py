"""Fault 13: the cluster is gone, or a part of it without which nothing runs (issue 9, item 5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.driver import GAVE_UP
from tests.faults.driver_process import DriverProcess
from tests.faults.machines import Machines, kill, until
from tests.faults.truth import assert_whole

NOTICED = 30
"""Seconds within which a person is told."""
ENDED = 120
RESUMES = "the same command resumes the job"
PROCESSES = {
    "raylet": "raylet/raylet",
    "GCS": "gcs_server",
    "dashboard agent": "ray::DashboardAgent",
    "runtime-env agent": "ray::RuntimeEnvAgent",
}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Case, Machines]]:
    """A cluster that the test may ruin."""
    machines = Machines((1,))
    case = Case(tmp_path, machines.address)
    yield case, machines
    case.close()
    machines.close()


def at_work(case: Case, driver: DriverProcess, run: int = 1) -> None:
    until(lambda: case.log.answered(run) or not driver.running, ENDED, "rows are answered")
    assert driver.running, driver.tail


def says(driver: DriverProcess, words: str, seconds: float) -> float:
    """Waits until the driver has printed this; how long it took."""
    began = time.monotonic()
    until(lambda: words in driver.printed, seconds, f"{words!r}, in {driver.tail}")
    return time.monotonic() - began


def the_first(found: Callable[[], list[int]], process: str) -> int:
    """The process, as soon as it is there: an agent may have its title long after rows are answered."""
    pids: list[int] = until(found, NOTICED, f"the {process} has started")
    return pids[0]


@pytest.mark.slow
@pytest.mark.parametrize("process", PROCESSES)
def test_a_local_cluster_that_loses_a_process_is_started_again(tmp_path: Path, process: str):
    case = Case(tmp_path, "")
    case.shard("s", 4000)
    try:
        with case.watch() as watcher:
            driver = case.start(seconds=0.05)
            at_work(case, driver)
            kill(the_first(lambda: driver.helpers(PROCESSES[process]), process))
            again = says(driver, "Ray is started again", ENDED)
            print(f"\n{process} of a local job killed: started again after {again:.0f} s")
            case.log.hurry()
            assert driver.wait(180) == 0, driver.tail
        assert_whole(case, watcher)
    finally:
        case.close()


@pytest.mark.slow
def test_a_local_cluster_can_do_without_its_dashboard(tmp_path: Path):
    case = Case(tmp_path, "")
    case.shard("s", 2000)
    try:
        with case.watch() as watcher:
            driver = case.start(seconds=0.02)
            at_work(case, driver)
            for pid in driver.helpers("dashboard/dashboard.py"):
                kill(pid)
            case.log.hurry()
            assert driver.wait(180) == 0, driver.tail
        assert "is gone" not in driver.printed
        assert_whole(case, watcher)
    finally:
        case.close()


@pytest.mark.slow
def test_a_job_that_loses_its_last_machine_says_so_and_goes_on_with_the_next(own):
    case, machines = own
    case.shard("s", 4000)
    with case.watch() as watcher:
        driver = case.start(seconds=0.05)
        at_work(case, driver)
        machines.lose(next(iter(machines.nodes)))
        lost = says(driver, "is gone", ENDED)
        said = says(driver, "no machine of the Ray cluster has 1 CPUs", NOTICED)
        print(f"\nthe last machine lost: noticed after {lost:.0f} s, said {said:.0f} s later")
        machines.add()
        case.log.hurry()
        assert driver.wait(180) == 0, driver.tail
    assert "there is a place for workers again" in driver.printed
    assert_whole(case, watcher)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "says_so"),
    [
        ("worker node", "no machine of the Ray cluster has 1 CPUs"),
        ("GCS", "does not answer any more"),
        ("raylet", "its raylet) is gone"),
        ("dashboard agent", "its raylet) is gone"),
        ("runtime-env agent", "its raylet) is gone"),
    ],
    ids=lambda value: value if value in PROCESSES or value == "worker node" else "said",
)
def test_a_job_without_a_cluster_ends_when_its_patience_does(own, process: str, says_so: str):
    """All but the worker node are processes of the head, where the driver runs."""
    case, machines = own
    case.shard("s", 100_000)
    cluster = {"actors": 1, "cpus_per_actor": 1, "patience": 25}
    driver = case.start({"cluster": cluster}, seconds=0.05)
    at_work(case, driver)
    head = machines.cluster.head_node
    if process == "worker node":
        machines.lose(next(iter(machines.nodes)))
    elif process == "GCS":
        kill(head.all_processes["gcs_server"][0].process.pid)
    elif process == "raylet":
        kill(head.all_processes["raylet"][0].process.pid)
    else:
        kill(the_first(lambda: machines.processes_of(head, PROCESSES[process]), process))
    began = time.monotonic()
    status = driver.wait(ENDED)
    print(f"\n{process} of a cluster killed: ended after {time.monotonic() - began:.0f} s\n{driver.tail}")
    assert status == GAVE_UP, driver.tail
    assert says_so in driver.printed
    assert RESUMES in driver.printed
