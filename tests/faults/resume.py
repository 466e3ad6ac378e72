"""A job that is begun again and again, and what must hold then."""

from __future__ import annotations

from typing import Any

from tests.faults.case import Case
from tests.faults.driver_process import DriverProcess
from tests.faults.truth import data


def fill(case: Case, rows: int = 1000) -> None:
    for shard, share in enumerate((4, 3, 2, 1)):
        case.shard(f"s{shard}", rows * share // 10)
    case.shard("tiny", 1)


def resume(case: Case) -> None:
    driver = resumed(case)
    assert driver.wait(120) == 0, driver.tail
    check(case)


def resumed(case: Case, **order: Any) -> DriverProcess:
    """A new driver; which shards were finished before it began is kept for `check`."""
    check(case)
    case.marks.append(set(case.finished()))
    return case.start(**order)


def check(case: Case) -> None:
    """No run has answered a row of a shard that was finished before it."""
    for run, finished in enumerate(case.marks, 1):
        again = {row for row in case.log.answered(run) if row.rpartition("-")[0] in finished}
        assert not again, f"run {run} answered {len(again)} rows of shards that were finished"


def assert_as_undisturbed(case: Case) -> None:
    other = case.twin()
    other.run(seconds=0)
    ours, theirs = case.finished(), other.finished()
    assert ours.keys() == theirs.keys()
    assert all(data(ours[name]) == data(theirs[name]) for name in ours)
