"""Fault 3: the driver is killed at every step of the commit, and the job is run again."""

from __future__ import annotations

import json
import random
import time
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.output.assembly import write_table
from pipeline.output.footer import Footer
from pipeline.output.verify import verify
from tests.faults.case import Case
from tests.faults.commits import (
    answers_of,
    committed,
    ended,
    manifest_of,
    plan_of,
    whole_of,
    work,
    work_until,
)
from tests.faults.machines import kill, until
from tests.faults.resume import assert_as_undisturbed, check, fill, resume, resumed
from tests.faults.truth import assert_whole, data

FAR = 10**6


@pytest.mark.slow
def test_a_process_killed_before_any_change_to_the_output_loses_nothing_that_was_committed(tmp_path):
    changes, log = tmp_path / "changes", tmp_path / "log"
    assert ended(work_until, tmp_path / "undisturbed", log, FAR, changes) == 0
    steps = json.loads(changes.read_text())
    assert {"os.link job.json", "os.link large.parquet", "os.link _SUCCESS"} < set(steps)
    for step in range(1, len(steps) + 1):
        output = tmp_path / f"out-{step}"
        log.write_text("")
        assert ended(work_until, output, log, step) == -9, f"step {step} was not reached"
        before = committed(output)
        log.write_text("")
        assert ended(work, output, log) == 0, f"killed before {steps[step - 1]}"
        assert not before & set(log.read_text().splitlines()), f"{steps[step - 1]}: computed again"
        assert verify(str(output)).problems == []
        assert same(output, tmp_path / "undisturbed")
    print(f"\n{len(steps)} steps")


def same(output: Path, other: Path) -> bool:
    names = sorted(path.name for path in other.glob("responses/*"))
    assert sorted(path.name for path in output.glob("responses/*")) == names
    tables = [[pa.parquet.read_table(o / "responses" / name) for name in names] for o in (output, other)]
    return all(data(a) == data(b) for a, b in zip(*tables, strict=True))


DEATHS = ("os.link job.json", "os.rename usage.parquet", "os.link _SUCCESS", "os.remove job.json")
"""Steps of the driver itself, in order; the last is in the midst of clearing the work folder."""


@pytest.mark.slow
def test_a_driver_killed_again_and_again_computes_no_finished_shard_twice(case):
    fill(case)
    with case.watch() as watcher:
        killed_when(case, "_work/chunks/**/*.parquet")
        killed_when(case, "responses/*.parquet")
        killed_before(case, "os.link _SUCCESS")
        resume(case)
    assert_whole(case, watcher)


@pytest.mark.slow
def test_a_driver_killed_before_each_of_its_own_steps_computes_no_finished_shard_twice(case):
    fill(case)
    with case.watch() as watcher:
        for step in DEATHS:
            killed_before(case, step)
        resume(case)
    assert_whole(case, watcher)
    assert_as_undisturbed(case)


@pytest.mark.slow
def test_a_driver_killed_at_ten_random_moments_computes_no_finished_shard_twice(case):
    fill(case, rows=4000)
    chance = random.Random(3)
    with case.watch() as watcher:
        for _ in range(10):
            driver = resumed(case, seconds=0.008)
            born = partial(case.log.events, "born", run=driver.order.run)
            until(born, 60, "a worker")
            time.sleep(chance.uniform(0, 3))
            assert driver.running
            driver.kill()
        case.log.hurry()
        resume(case)
    assert_whole(case, watcher)
    assert_as_undisturbed(case)


@pytest.mark.slow
def test_tasks_killed_while_they_put_shards_together_change_nothing(case, machines):
    fill(case, rows=3000)
    killed = 0
    with case.watch() as watcher:
        driver = resumed(case)
        while driver.running:
            # Ray tries each of them ten times.
            if killed < 8:
                killed += sum(kill(pid) for pid in machines.processes("ray::_each"))
            time.sleep(0.005)
        assert driver.wait(0) == 0, driver.tail
    assert killed
    print(f"\n{killed} tasks killed")
    assert_whole(case, watcher)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1_000, 10_000])
def test_resume_lists_finished_shards_in_a_few_seconds(tmp_path, shards):
    plans = [plan_of(f"s{number}.parquet") for number in range(shards)]
    manifest = manifest_of(tmp_path / "out", plans)
    manifest.begin()
    (tmp_path / "out/responses").mkdir()
    table, tally = answers_of(whole_of(plan_of("s.parquet")))
    for plan in plans:
        name, source = plan.shard.name, manifest.fingerprint.source(plan.shard.name) or ""
        footer = Footer(manifest.fingerprint.digest, name, 0, table.num_rows, tally, source=source)
        with (tmp_path / f"out/responses/{name}").open("wb") as file:
            write_table(file, [table], footer)
    began = time.monotonic()
    manifest.begin()
    assert len(manifest.finished_shards()) == shards
    seconds = time.monotonic() - began
    print(f"\n{shards:,} finished shards are listed in {seconds:.2f} s")
    assert seconds < 5 * max(1, shards / 1000)


def killed_when(case: Case, pattern: str) -> None:
    """The driver dies as soon as one more such file is there."""
    there = len(list(case.output.glob(pattern)))
    driver = resumed(case)
    case.appears(pattern, count=there + 1)
    driver.kill()


def killed_before(case: Case, step: str) -> None:
    driver = resumed(case, dies_before=step)
    assert driver.wait(60) == -9, driver.tail
    check(case)
