"""A forecast is held against what came, in the job's record, its summary and its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.plan.blocks import Blocks
from pipeline.plan.checked import Checked
from pipeline.plan.forecast import Crew, Forecast
from pipeline.plan.held import held_at, keep_forecast, note_seconds
from pipeline.plan.pace import Pace
from pipeline.report.forecast_text import held_lines
from pipeline.report.page import write_report
from tests.answered import Answered


def finished(folder: Path) -> str:
    job = Answered(str(folder / "out"), {"a.parquet": [("a long answer", {})] * 8}, pa.schema([]))
    each = np.full(2, 2.0)
    blocks = Blocks(each, 0 * each, 60 * each, 40 * each, 4 * each, 300 * each)
    rows, pace = (8, 4, 1), Pace(1.0, 4, 8.0)
    crew = Crew(1, 2.0, 0.0, price=3.6)
    keep_forecast(
        job.manifest.output, Forecast.of("made up", job.url, rows, blocks, pace, Checked(8, 480), crew)
    )
    note_seconds(job.manifest.output, 6.0)
    note_seconds(job.manifest.output, 3.0)
    job.finish()
    return job.url


def test_what_came_stands_beside_the_forecast(tmp_path: Path) -> None:
    found = {number.name: number for number in held_at(finished(tmp_path))}
    came = {name: number.came for name, number in found.items() if name != "output_bytes"}
    assert came == pytest.approx(
        {
            "rows": 8,
            "prompt_tokens": 480,
            "completion_tokens": 32,
            "cached_share": 320 / 480,
            "seconds": 9.0,
            "cpu_hours": 2 * 9.0 / 3600,
            "cost": 3.6 * 9.0 / 3600,
        }
    )
    assert found["seconds"].forecast.value == 9.0
    assert found["seconds"].is_within
    (line,) = held_lines(list(found.values()))
    assert line.startswith("against the forecast: time 9.0 s, forecast 9.0 s")


def test_the_report_shows_both(tmp_path: Path) -> None:
    page = Path(write_report(finished(tmp_path))).read_text()
    assert "Forecast and what came" in page
    assert "<td>tokens out</td>" in page


def test_a_job_without_a_forecast_has_nothing_to_hold(tmp_path: Path) -> None:
    job = Answered(str(tmp_path / "out"), {"a.parquet": [("yes", {})]}, pa.schema([])).finish()
    note_seconds(job.manifest.output, 1.0)
    assert held_at(job.url) == []
    assert list(held_lines([])) == []
