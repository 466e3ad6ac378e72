"""Fault 7: a worker is stopped, counts as dead, its work is done by another, and it wakes up."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.output.records import response_name
from pipeline.output.verify import verify
from tests.faults.commits import (
    COMMITS,
    HALVES,
    answers_of,
    commit_after_stop,
    manifest_of,
    manifest_of_race,
    processes,
    race_of,
    racer,
    started,
    work,
)
from tests.faults.machines import kill, until
from tests.faults.truth import assert_whole

ROUNDS = 100


@pytest.mark.slow
def test_of_two_processes_that_commit_the_same_rows_at_once_one_wins_100_times_of_100(tmp_path):
    output, context = tmp_path / "out", processes()
    manifest = manifest_of_race(output, ROUNDS)
    manifest.begin()
    barrier, results = context.Barrier(2), context.Queue()
    racers = [started(racer, output, author, ROUNDS, barrier, results) for author in "AB"]
    said = [results.get(timeout=60) for _ in range(2 * ROUNDS)]
    for process in racers:
        process.join(30)
        assert process.exitcode == 0
    wins = dict.fromkeys("AB", 0)
    for number in range(ROUNDS):
        chunk, single, double = race_of(number)
        winners = [author for n, author, won, *_ in said if n == number and won]
        assert len(winners) == 1, f"round {number}: {winners}"
        assert authors(output / manifest.chunk_name(chunk)) == set(winners)
        assert len(authors(output / response_name(single.shard))) == 1
        assert pq.read_metadata(output / response_name(double.shard)).num_rows == double.rows
        assert len({str(totals) for n, _, _, *totals in said if n == number}) == 1
        wins[winners[0]] += 1
    assert not list(output.glob("_work/tmp/*"))
    print(f"\none winner in {ROUNDS} of {ROUNDS} rounds: {wins}")


@pytest.mark.parametrize("commit", COMMITS)
def test_a_zombie_that_wakes_up_at_any_step_of_its_commit_changes_nothing(tmp_path, commit):
    steps = 0
    while zombie := stopped_in(commit, tmp_path / f"out-{steps}", steps + 1):
        steps += 1
        ours = COMMITS[commit](manifest_of(zombie.output), "heir")
        before = contents(zombie.output)
        theirs = zombie.wake()
        assert ours != theirs if commit == "chunk" else ours == theirs
        assert contents(zombie.output).items() <= before.items()
        assert not list(zombie.output.glob("_work/tmp/*"))
    print(f"\n{commit}: {steps} steps")
    assert steps > 3


@pytest.mark.parametrize("commit", COMMITS)
def test_a_zombie_that_wakes_up_after_the_end_of_the_job_leaves_nothing_behind(tmp_path, commit):
    steps = 0
    while zombie := stopped_in(commit, tmp_path / f"out-{steps}", steps + 1):
        steps += 1
        work(zombie.output, tmp_path / "log")
        before = contents(zombie.output)
        zombie.wake()
        assert contents(zombie.output) == before, f"it had stopped before step {steps}"
        assert verify(str(zombie.output)).problems == []
    assert steps > 3


@dataclass
class Zombie:
    """A process that has stopped in the midst of a commit."""

    output: Path
    process: BaseProcess

    def wake(self) -> Any:
        """What its commit says."""
        kill(self.process.pid, signal.SIGCONT)
        self.process.join(30)
        assert self.process.exitcode == 0
        return json.loads(self.output.with_suffix(".result").read_text())


def stopped_in(commit: str, output: Path, step: int) -> Zombie | None:
    """None if the commit has fewer steps than that."""
    manifest = manifest_of(output)
    manifest.begin()
    if commit == "shard":
        for half in HALVES:
            manifest.commit_chunk(half, *answers_of(half))
    process = started(commit_after_stop, output, commit, "zombie", step, output.with_suffix(".result"))
    until(lambda: stopped(process.pid) or not process.is_alive(), 30, "the zombie")
    return Zombie(output, process) if stopped(process.pid) else None


def contents(output: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def authors(path: Path) -> set[str]:
    return set(pq.read_table(path)["text"].to_pylist())


@pytest.mark.slow
def test_actors_that_sleep_past_the_time_out_and_wake_up_change_nothing(case, machines):
    """The node's raylet sleeps as well: otherwise it ends the actor as soon as the driver says so."""
    case.shard("s", 60_000)
    woken = 0
    with case.watch() as watcher:
        driver = case.start(seconds=0.02, constants={"SILENCE": 4.0})
        for _ in range(3):
            woken += slept_and_woken(case, machines)
        case.log.hurry()
        assert driver.wait(300) == 0, driver.tail
    print(f"\n{woken} rows answered by zombies; {case.log.redone()} rows redone")
    assert woken
    assert_whole(case, watcher)


def slept_and_woken(case, machines) -> int:
    """Rows that an actor answered after it had been replaced."""
    node = until(lambda: node_at_work(case, machines), 60, "an actor at work")
    raylet = machines.nodes[node].all_processes["raylet"][0].process.pid
    pids = machines.processes("ray::", node)
    gone = case.drivers[-1].printed.count("is gone")
    for pid in (raylet, *pids):
        kill(pid, signal.SIGSTOP)
    until(lambda: case.drivers[-1].printed.count("is gone") > gone, 60, "the actor counts as dead")
    time.sleep(1)
    woken = time.time()
    for pid in (*pids, raylet):
        kill(pid, signal.SIGCONT)
    time.sleep(5)
    if machines.nodes[node].all_processes["raylet"][0].process.poll() is not None:
        machines.lose(node)
        machines.add()
    late = [r for r in case.log.events("answered") if r["pid"] in pids and r["at"] > woken]
    return len(late)


def node_at_work(case, machines) -> str | None:
    """A node where an actor has answered rows and lives."""
    answered = {record["pid"] for record in case.log.events("answered")}
    return next((n for n in machines.nodes if answered & set(machines.processes("ray::", n))), None)
