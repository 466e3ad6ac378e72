"""A forecast says what a job will need from what a sample of it has cost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.failures import Failures, Reason
from pipeline.plan.blocks import Blocks
from pipeline.plan.checked import Checked
from pipeline.plan.estimate import Bootstrap, Estimate
from pipeline.plan.forecast import Crew, Forecast
from pipeline.plan.pace import Pace
from pipeline.pulse import Pulse
from pipeline.report.forecast_text import forecast_text

AMOUNTS = st.lists(st.tuples(st.integers(1, 16), st.integers(0, 5000)), min_size=2, max_size=20)


@given(AMOUNTS)
def test_an_interval_holds_its_number_and_is_the_same_each_time(amounts: list[tuple[int, int]]) -> None:
    rows, tokens = np.array(amounts, np.float64).T
    found = Bootstrap(rows).per_row(tokens)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(tokens.sum() / rows.sum())
    assert found == Bootstrap(rows).per_row(tokens)


def test_of_a_hundred_samples_about_ninety_intervals_hold_what_they_estimate() -> None:
    chance = np.random.default_rng(3)
    rows = np.full(24, 16.0)
    found = [Bootstrap(rows).per_row(chance.gamma(2, 100, 24) * 16) for _ in range(100)]
    assert 80 <= sum(estimate.holds(200) for estimate in found) <= 99


def blocks(count: int = 16, rows: int = 16, prompt: int = 50, cached: int = 20, out: int = 10) -> Blocks:
    each = np.full(count, float(rows))
    return Blocks(each, 0 * each, prompt * each, cached * each, out * each, 300 * each)


def forecast(pace: Pace, crew: Crew, left: int = 9_000, checked: Checked | None = None) -> Forecast:
    found = checked or Checked(10_000, 500_000)
    return Forecast.of("labels", "out", (10_000, left, 3), blocks(), pace, found, crew)


PACE = Pace(start=12.0, rows=100, seconds=20.0)


def test_numbers_grow_with_the_rows_and_time_with_those_that_are_left() -> None:
    numbers = forecast(PACE, Crew(1, 2.0, 0.0)).numbers
    assert numbers["rows"] == Estimate.known(10_000)
    assert numbers["prompt_tokens"] == Estimate.known(500_000)
    assert numbers["completion_tokens"].value == pytest.approx(100_000)
    assert numbers["cached_share"].value == pytest.approx(0.4)
    assert numbers["output_bytes"].value == pytest.approx(3e6, rel=0.02)
    assert numbers["seconds"].value == pytest.approx(12 + 9_000 * 0.2)
    assert numbers["cpu_hours"].value == pytest.approx(2 * (12 + 1_800) / 3600)
    assert "gpu_hours" not in numbers
    assert "cost" not in numbers


def test_more_workers_take_less_time_but_for_the_start_and_the_end() -> None:
    several = forecast(PACE, Crew(4, 2.0, 1.0, price=3.0)).numbers
    seconds = several["seconds"].value
    assert 12 + 450 < seconds < 12 + 450 + 32 * 0.2
    assert several["gpu_hours"].value == pytest.approx(4 * seconds / 3600)
    assert several["cost"].value == pytest.approx(3 * seconds / 3600)


def test_prompt_tokens_are_estimated_where_not_all_rows_were_counted() -> None:
    numbers = forecast(PACE, Crew(1, 2.0, 0.0), checked=Checked(1_000, 50_000)).numbers
    assert numbers["prompt_tokens"].value == pytest.approx(500_000)


def test_what_the_end_of_the_sample_lost_counts_once_and_not_for_each_row() -> None:
    before = Pulse(full_seconds=1.0, full_tokens=100, last_seconds=2.0, last_tokens=50)
    after = Pulse(full_seconds=11.0, full_tokens=1_100, last_seconds=6.0, last_tokens=150)
    pace = Pace.of(5.0, 100, 20.0, before, after)
    assert pace.token_seconds == pytest.approx(0.01)
    assert pace.end == pytest.approx(4.0 - 1.0)
    assert pace.row_seconds == pytest.approx(0.17)
    assert pace.once(1) == pytest.approx(8.0)


def test_an_engine_that_was_never_full_says_nothing_of_its_pace() -> None:
    pace = Pace.of(5.0, 100, 20.0, Pulse(), Pulse(last_seconds=20.0, last_tokens=900))
    assert (pace.token_seconds, pace.end, pace.row_seconds) == (0.0, 0.0, 0.2)


def test_blocks_with_longer_answers_widen_the_interval_of_the_time() -> None:
    uneven = replace(blocks(), completion_tokens=np.array([0.0, 320.0] * 8))
    pace = replace(PACE, token_seconds=0.01)
    rest = (10_000, 9_000, 3), Checked(10_000, 500_000), Crew(1, 2.0, 0.0)
    even, wide = (
        Forecast.of("labels", "out", rest[0], found, pace, *rest[1:]).numbers["seconds"]
        for found in (blocks(), uneven)
    )
    assert wide.value == pytest.approx(even.value)
    assert wide.high - wide.low > 1.1 * (even.high - even.low)


def test_a_forecast_survives_its_record_and_says_what_will_be_refused() -> None:
    refused = Failures.of([Reason("invalid_request", "max_tokens must be ...", 7, "a.parquet", "r3")])
    found = forecast(PACE, Crew(1, 2.0, 0.0), checked=Checked(10_000, 500_000, refused))
    assert Forecast.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    text = forecast_text(found)
    assert "7 of 10,000 rows will be refused (all were checked):" in text
    assert "for example 'r3' in a.parquet" in text
    assert "9,000 of them left" in text
