"""What the driver tells Ray of the job as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pipeline.job.actors.metrics import Metric, Recorder, seconds_left
from pipeline.report.progress import Rates
from pipeline.tally import Tally

EVERY = 1.0
"""Seconds between two records."""

SUCCEEDED = Metric("nightherd_rows_succeeded", "counter", "Rows that were answered and committed.")
FAILED = Metric(
    "nightherd_rows_failed", "counter", "Rows that were committed with an error, by its code.", ("code",)
)
RETRIES = Metric("nightherd_row_retries", "counter", "Attempts at committed rows beyond the first.")
DEATHS = Metric(
    "nightherd_worker_deaths",
    "counter",
    "Workers that were lost at work: to rows, machine, memory.",
    ("cause",),
)
WORKERS = Metric("nightherd_workers", "gauge", "Workers that can take rows.")
DONE = Metric("nightherd_rows_done", "gauge", "Rows of the job that are answered, by earlier runs too.")
LEFT = Metric("nightherd_rows_left", "gauge", "Rows of the job that are not answered yet.")
SECONDS_LEFT = Metric(
    "nightherd_estimated_seconds_left", "gauge", "Seconds until the last row, at the pace of late."
)
ROWS_RATE = Metric("nightherd_rows_per_second", "gauge", "Rows answered, over the last 15 seconds.")
PROMPT_RATE = Metric(
    "nightherd_avg_prompt_throughput_toks_per_s", "gauge", "Prompt tokens computed, over the last 15 seconds."
)
GENERATION_RATE = Metric(
    "nightherd_avg_generation_throughput_toks_per_s", "gauge", "Tokens generated, over the last 15 seconds."
)

JOB_METRICS = (
    SUCCEEDED,
    FAILED,
    RETRIES,
    DEATHS,
    WORKERS,
    DONE,
    LEFT,
    SECONDS_LEFT,
    ROWS_RATE,
    PROMPT_RATE,
    GENERATION_RATE,
)


class JobMetrics:
    """May be shown the state of things many times a second."""

    def __init__(self, job: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._recorder, self._clock = Recorder(job), clock
        self._next = -float("inf")

    def show(
        self, run: Tally, deaths: Mapping[str, int], answered: int, total: int, rates: Rates, workers: int
    ) -> None:
        """run: what this run has committed. deaths: of workers, by cause.
        answered, total: rows of the job."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + EVERY
        self.record(run, deaths)
        self._recorder.set_all(
            {
                WORKERS: workers,
                DONE: answered,
                LEFT: total - answered,
                SECONDS_LEFT: seconds_left(total - answered, rates.rows),
                ROWS_RATE: rates.rows,
                PROMPT_RATE: rates.tokens_in,
                GENERATION_RATE: rates.tokens_out,
            }
        )

    def record(self, run: Tally, deaths: Mapping[str, int]) -> None:
        """The counts alone, at once."""
        self._recorder.count(SUCCEEDED, run.succeeded)
        self._recorder.count(RETRIES, run.attempts - run.rows)
        for code, rows in run.errors.codes:
            self._recorder.count(FAILED, rows, code=code)
        for cause, count in deaths.items():
            self._recorder.count(DEATHS, count, cause=cause)
