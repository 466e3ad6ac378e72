"""Fault 5: `ray job stop`. It needs ray[default], which the tests' other dependencies do not bring."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.machines import ROOT, Machines, until
from tests.faults.resume import check, fill, resume
from tests.faults.truth import assert_whole


@pytest.fixture
def dashboard() -> Iterator[Machines]:
    if find_spec("opencensus") is None:
        pytest.fail('ray job submit needs more of Ray: pip install "ray[default]"')
    machines = Machines((1, 1), include_dashboard=True, dashboard_port=8299)
    yield machines
    machines.close()


@pytest.mark.slow
def test_ray_job_stop_leaves_an_output_that_the_same_job_goes_on_with(tmp_path: Path, dashboard: Machines):
    case = Case(tmp_path, dashboard.address)
    fill(case, rows=10_000)
    order = tmp_path / "order.json"
    case.order(seconds=0.02).write(order)
    with case.watch() as watcher:
        case.marks.append(set())
        job = submit(dashboard, order)
        case.appears("responses/*.parquet", seconds=120)
        said = ray_job(dashboard, "stop", job) + ray_job(dashboard, "logs", job)
        assert "was stopped" in said
        assert "SIGTERM" in said and "the same command resumes the job" in said
        assert not (case.output / "_SUCCESS").exists()
        # The answered rows of the chunks that were under way are kept as well.
        assert list(case.output.glob("_work/chunks/**/*.draft"))
        case.log.hurry()
        resume(case)
    print("\n" + "\n".join(line for line in said.splitlines() if "top" in line))
    print(f"rows redone: {case.log.redone()}")
    assert_whole(case, watcher)
    check(case)


def submit(machines: Machines, order: Path) -> str:
    said = ray_job(
        machines, "submit", "--no-wait", "--", sys.executable, "-m", "tests.faults.driver", str(order)
    )
    found = re.search(r"raysubmit_\w+", said)
    assert found, said
    until(lambda: "RUNNING" in ray_job(machines, "status", found[0]), 60, "the job runs", pause=0.5)
    return found[0]


def ray_job(machines: Machines, command: str, *args: str) -> str:
    """What `ray job COMMAND` prints."""
    environment = {**os.environ, "RAY_ADDRESS": f"http://{machines.cluster.webui_url}"}
    ray = Path(sys.executable).with_name("ray")
    done = subprocess.run(
        [str(ray) if ray.exists() else "ray", "job", command, *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=120,
    )
    return done.stdout + done.stderr
