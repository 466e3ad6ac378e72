"""Fault 4: every process of the cluster is killed at once, and the job goes on with a new cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.case import Case
from tests.faults.machines import Machines
from tests.faults.resume import assert_as_undisturbed, check, fill, resume, resumed
from tests.faults.truth import assert_whole


@pytest.mark.slow
def test_a_job_whose_cluster_is_lost_goes_on_with_a_new_one(tmp_path: Path):
    first = second = Machines((1, 1))
    case = Case(tmp_path, first.address)
    fill(case, rows=4000)
    try:
        with case.watch() as watcher:
            driver = resumed(case, seconds=0.005)
            case.appears("responses/*.parquet")
            first.lose_all()
            began = time.monotonic()
            status = driver.wait(180)
            print(f"\nthe driver ended {time.monotonic() - began:.0f} s after its cluster, with {status}")
            print(driver.printed[-1500:])
            assert status not in (0, -9)
            assert not (case.output / "_SUCCESS").exists()
            second = Machines((1, 1))
            case.address = second.address
            resume(case)
        assert_whole(case, watcher)
        check(case)
        assert_as_undisturbed(case)
    finally:
        case.close()
        second.close()
