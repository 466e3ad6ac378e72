"""What a report holds of an output is bounded, and true of all rows or of a fair sample."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.reservoir import Reservoir
from pipeline.report.spread import SAMPLE, Spread
from pipeline.report.timeline import MOST_BINS, Timeline

COUNTS = st.lists(st.integers(0, 40), max_size=12)


def fill(reservoir: Reservoir[int], counts: list[int]) -> list[int]:
    for count in counts:
        start = reservoir.offered
        reservoir.offer(count, lambda index, start=start: start + index)
    return reservoir.items


@given(size=st.integers(1, 30), counts=COUNTS, seed=st.integers(0, 99))
def test_a_sample_is_bounded_in_order_and_reproducible(size, counts, seed):
    items = fill(Reservoir(size, seed), counts)
    assert len(items) == min(size, sum(counts))
    assert items == sorted(set(items))
    assert items == fill(Reservoir(size, seed), counts)


def test_every_item_has_the_same_chance():
    found = Counter(item for seed in range(2000) for item in fill(Reservoir(5, seed), [1, 7, 12]))
    # 500 of 2,000 are expected of each; five standard deviations are 97.
    assert all(abs(found[item] - 500) < 97 for item in range(20))


@given(st.lists(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=30), max_size=6))
def test_a_spread_of_few_numbers_is_exact(parts):
    spread = Spread()
    for part in parts:
        spread.add(np.array(part, float))
    known = np.array([value for part in parts for value in part if value == value])
    assert (spread.count, spread.sampled) == (len(known), False)
    if len(known):
        assert (spread.least, spread.most) == (known.min(), known.max())
        assert spread.mean == pytest.approx(known.mean())
        assert spread.quantile(0.5) == pytest.approx(np.quantile(known, 0.5))


def test_a_spread_of_many_numbers_is_near():
    spread, values = Spread(), np.random.default_rng(0).lognormal(3, 1, 5 * SAMPLE)
    for part in np.split(values, 50):
        spread.add(part)
    assert len(spread.sample) == SAMPLE
    assert spread.mean == pytest.approx(values.mean())
    for share in (0.05, 0.5, 0.95):
        assert spread.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.05)


TIMES = st.lists(
    st.lists(st.integers(1_700_000_000, 1_701_000_000), min_size=1, max_size=20), min_size=1, max_size=5
)


@given(TIMES)
def test_a_timeline_loses_no_row_and_stays_small(parts):
    line = Timeline()
    for part in parts:
        seconds = np.array(part)
        line.add(seconds, np.full(len(part), 3), np.full(len(part), 2))
    rows = sum(map(len, parts))
    bins = line.bins
    assert len(bins) <= MOST_BINS
    assert sum(found.rows for found in bins) == rows
    assert sum(found.tokens_in for found in bins) == 3 * rows
    assert sum(found.tokens_out for found in bins) == 2 * rows
    assert [found.start for found in bins] == list(range(bins[0].start, bins[-1].start + 1, line.width))
    assert bins[0].start <= min(map(min, parts)) == line.first
    assert bins[-1].start + line.width > max(map(max, parts)) == line.last


def test_hours_without_an_answer_are_a_pause():
    line = Timeline()
    night = np.array([*range(0, 3600, 30), *range(10_800, 14_400, 30)])
    line.add(night, np.ones_like(night), np.ones_like(night))
    assert [(pause.start, pause.stop) for pause in line.pauses] == [(3600, 10_800)]
