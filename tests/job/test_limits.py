"""When a run ends by itself: at a time, after hours, tokens or failures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import LimitsConfig, make_job
from pipeline.errors import ConfigError
from pipeline.job.limits import Limits
from pipeline.pulse import Pulse
from pipeline.tally import Tally

ZONE = timezone(timedelta(hours=2))
EVENING = datetime(2026, 12, 23, 22, 15, tzinfo=ZONE)
PATHS = {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": "o"}}


def limits(now: datetime = EVENING, **config: Any) -> tuple[Limits, list[datetime]]:
    """The limits of a run that begins now, and its clock, to be moved on."""
    clock = [now]
    return Limits.begin(LimitsConfig(**config), lambda: clock[0]), clock


@pytest.mark.parametrize(
    ("stop_at", "ends"),
    [
        ("06:00", datetime(2026, 12, 24, 6, 0, tzinfo=ZONE)),
        ("22:30", datetime(2026, 12, 23, 22, 30, tzinfo=ZONE)),
        ("22:15", datetime(2026, 12, 24, 22, 15, tzinfo=ZONE)),
        ("2026-12-25 06:00", datetime(2026, 12, 25, 6, 0, tzinfo=ZONE)),
        ("2026-12-24T05:00+00:00", datetime(2026, 12, 24, 7, 0, tzinfo=ZONE)),
    ],
)
def test_a_time_of_day_is_the_next_one_and_a_date_is_that_date(stop_at, ends):
    night, clock = limits(stop_at=stop_at)
    clock[0] = ends - timedelta(seconds=1)
    assert night.reached(Tally(), Pulse()) is None
    clock[0] = ends
    assert str(night.reached(Tally(), Pulse())).startswith("limits.stop_at ends the run: it is 2026-12-2")


def test_a_date_in_the_past_is_refused_with_the_time_now():
    with pytest.raises(
        ConfigError, match=r"limits\.stop_at: 2026-12-23 06:00 is over, it is 2026-12-23 22:15 now"
    ):
        limits(stop_at="2026-12-23 06:00")


@given(st.floats(0.01, 100))
def test_of_hours_and_a_time_the_earlier_one_ends_the_run(hours):
    night, clock = limits(stop_at="06:00", hours=hours)
    until_six = timedelta(hours=7, minutes=45)
    clock[0] = EVENING + min(until_six, timedelta(hours=hours))
    name = "stop_at" if until_six < timedelta(hours=hours) else "hours"
    assert str(night.reached(Tally(), Pulse())).startswith(f"limits.{name} ends the run")


@given(st.integers(1, 1000), st.integers(0, 2000), st.integers(0, 2000))
def test_tokens_count_when_they_are_committed_or_computed(most, committed, computed):
    night, _ = limits(tokens=most)
    tally, pulse = Tally(prompt_tokens=committed), Pulse(completion_tokens=computed)
    assert bool(night.reached(tally, pulse)) == (max(committed, computed) >= most)


def test_failed_rows_end_a_run_when_there_are_as_many():
    night, _ = limits(failures=10)
    assert night.reached(Tally(rows=9, failed=9), Pulse()) is None
    assert (
        night.reached(Tally(rows=50, failed=12), Pulse())
        == "limits.failures ends the run: 12 rows have failed"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:30", "22:30"),
        ("06:00", "06:00"),
        ("2026-12-24 06:00:00", "2026-12-24 06:00:00"),
        ('"06:00"', "06:00"),
    ],
)
def test_a_time_is_what_is_written_whatever_yaml_makes_of_it(text, value):
    """YAML reads 22:30 as 1350."""
    from pipeline.config import parse_setting

    job = make_job(dict(PATHS), [parse_setting(f"limits.stop_at={text}")], "test")
    assert job.limits.stop_at == value


@pytest.mark.parametrize(
    "wrong",
    [{"stop_at": "soon"}, {"stop_at": "25:00"}, {"hours": 0}, {"tokens": 0}, {"failures": -1}, {"rows": 1}],
)
def test_a_wrong_limit_is_named_by_its_path(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"limits\.{name}: "):
        make_job(PATHS | {"limits": wrong}, [], "test")
