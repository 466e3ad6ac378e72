"""Fault 9, end to end: the workers' disk fails now and then, or is full."""

from __future__ import annotations

import pytest

from tests.faults.disk import Disk
from tests.faults.driver import GAVE_UP
from tests.faults.resume import check, resume, resumed
from tests.faults.truth import assert_whole

RUNS = 20
"""More than this many can't all meet with the same ill luck."""


@pytest.mark.slow
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_job_on_a_failing_disk_ends_or_says_so_and_is_whole_in_the_end(case, error):
    case.shard("s", 3000)
    case.shard("t", 200)
    endings = []
    with case.watch() as watcher:
        while not endings or endings[-1]:
            driver = resumed(case, disk=Disk(error, 0.3, len(endings)))
            endings.append(driver.wait(120))
            assert endings[-1] in (0, GAVE_UP), driver.tail
            if endings[-1]:
                assert driver.printed.strip().splitlines()[-1].startswith("StorageError: ")
            assert len(endings) < RUNS
        check(case)
    failures = len(case.log.events("failed"))
    print(f"\n{error}: {failures} failures; the runs ended with {endings}")
    assert failures
    assert_whole(case, watcher)


@pytest.mark.slow
def test_a_job_on_a_full_disk_says_so_and_goes_on_when_there_is_room(case):
    case.shard("s", 1000)
    with case.watch() as watcher:
        driver = resumed(case, disk=Disk("ENOSPC", 1.0))
        assert driver.wait(60) == GAVE_UP
        assert "StorageError: " in driver.printed and "No space left" in driver.printed
        resume(case)
    assert_whole(case, watcher)
