"""Rows that end the process that runs them."""

from __future__ import annotations

import pytest

from pipeline.job.worker import Worker
from tests.serve.test_batch_crashes import Case, Dead


@pytest.fixture
def case(tmp_path):
    made = Case(tmp_path, None)
    yield made
    made.service.close()


def restarted(case: Case, most: int) -> int:
    """Starts again after each death; how many there were."""
    for deaths in range(most):
        try:
            case.work.carry(case.place, lambda: False, deaths)
        except Dead:
            continue
        return deaths
    return most


@pytest.mark.parametrize("bad", [{3}, {0}, {0, 4}])
def test_a_row_that_kills_is_found_and_the_others_are_answered(case, monkeypatch, bad):
    process = Worker.process

    def killed(self, plan, chunk, attempt=1, condemned=False):
        if not condemned and bad & set(range(chunk.start, chunk.stop)):
            raise Dead
        return process(self, plan, chunk, attempt, condemned)

    monkeypatch.setattr(Worker, "process", killed)
    # Twice with others, and then three times alone.
    assert restarted(case, 50) == 2 + 3 * len(bad)
    body = case.body()
    assert body["status"] == "completed"
    found = case.lines(body["error_file_id"])
    crashed = {line["custom_id"] for line in found if (line["error"] or {}).get("code") == "worker_crashed"}
    assert crashed == {f"row-{number}" for number in bad}
    good = {line["custom_id"] for line in case.lines(body["output_file_id"])}
    assert good == {f"row-{number}" for number in range(5)} - crashed


def test_a_machines_fault_is_never_a_rows(case, monkeypatch):
    """A process that dies whatever it runs speaks against no row."""

    def dead(*args, **options):
        raise Dead

    with monkeypatch.context() as broken:
        broken.setattr(Worker, "process", dead)
        broken.setattr(type(case.service), "ask", dead)
        assert restarted(case, 12) == 12
    case.work.carry(case.place, lambda: False, 12)
    body = case.body()
    assert body["request_counts"] == {"total": 6, "completed": 5, "failed": 1}
