"""A job's forecast: a sample of its rows is answered by one worker and measured; all rows are checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import JobConfig
from pipeline.errors import OutputError
from pipeline.input.shards import ShardPlan
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.job.actors.ray_tasks import Chores
from pipeline.job.actors.staff import Staff, staffed
from pipeline.job.beginning import begin_part
from pipeline.job.driver import JobWorkers, Workers
from pipeline.job.run import Run
from pipeline.job.screen import JobScreen
from pipeline.model.models import LocalModel, fetch_model
from pipeline.output.committed import CommittedRows
from pipeline.output.tried_out import write_tried_out
from pipeline.plan.blocks import Blocks
from pipeline.plan.checked import Checked, RowCheck, Task, tasks
from pipeline.plan.forecast import Crew, Forecast
from pipeline.plan.held import keep_forecast
from pipeline.plan.kept_plans import keep_plans
from pipeline.plan.opened import OpenJob, opened, silent
from pipeline.plan.pace import Pace
from pipeline.plan.try_out import Part, TryOut, rows_of
from pipeline.pulse import Pulse
from pipeline.tally import Tally

BLOCK_ROWS = 16
"""Rows of a sample that stand together in the input, as what neighbours share is part of what they cost."""
FIRST_ROWS = 32
"""Rows that are answered before anything is measured: the first ones pay for what all others share."""
MEASURED_ROWS = (64, 1024)
"""The fewest and the most rows that are measured."""
MEASURED_SECONDS = 20.0
"""How long the measured rows should take."""
LARGEST_SHARE = 4
"""At most one row in so many is sampled."""
_HEARTBEATS = 2.5

Tell = Callable[[int, int], None]
"""Told of the rows that are checked so far, of so many."""
Check = Callable[[Task], Checked]


def plan_job(
    job: JobConfig,
    sample: int | None = None,
    workers: Workers = JobWorkers,
    model: LocalModel | None = None,
    check: Check | None = None,
    tell: Tell = lambda done, rows: None,
    say: Callable[[str], None] = silent,
) -> Forecast:
    """Forecasts a job. The sample's answers, and the forecast, stay in the job's output as a try-out.

    sample: its rows; None for as many as take about MEASURED_SECONDS. workers, model, check: stand-ins.
    Raises JobError, an OutputError where no row is left to be answered.
    """
    if model is None:
        fetch_model(job.model)  # A download is no part of what the job takes.
    began = time.monotonic()
    with opened(job, model, say) as work:
        build = workers(work.config, work.manifest.fingerprint)
        with staffed(work.config, build, work.cluster, most=1) as staff:
            measured = _Sampling(work, staff, began).measure(sample)
        keep_plans(work.manifest.output, work.plans)
        on_gpu = staff.slot.gpus > 0
        unread = [plan for plan in work.plans if not plan.recorded]
        checked = _checked(unread, check or RowCheck(work.config, on_gpu), work.cluster, tell)
        forecast = _forecast(work, staff, measured, checked)
        keep_forecast(work.manifest.output, forecast)
    return forecast


@dataclass(frozen=True)
class _Measured:
    """What was sampled, how fast it went, and how many rows of the job are left."""

    part: Part
    pace: Pace
    left: int


class _Watch(JobScreen):
    """A screen that notes when the first worker is ready."""

    ready: float | None = None

    def show(self, run: Run, pulse: Pulse, workers: int) -> None:
        if workers and self.ready is None:
            self.ready = time.monotonic()
        super().show(run, pulse, workers)


class _Sampling:
    """Answers rows by one worker: a few that pay for what all others share, then those that are measured."""

    def __init__(self, work: OpenJob, staff: Staff, began: float) -> None:
        self._work, self._staff, self._began = work, staff, began
        self._part: Part = {}

    def measure(self, sample: int | None) -> _Measured:
        most = max(1, self._work.rows // LARGEST_SHARE)
        first = min(FIRST_ROWS, max(1, (sample or most) // 4))
        run, ready = self._answer(first)
        warm = time.monotonic() - ready
        if not run.tally.rows:
            raise OutputError(
                f"output {self._work.manifest.output.url}: every row is answered: there is nothing to plan; "
                "nightherd run ends the job"
            )
        start, rows, before = ready - self._began, run.tally.rows, self._pulse()
        wanted = sample - first if sample else _wanted(warm / rows, most - first)
        began = time.monotonic()
        again, _ = self._answer(wanted) if wanted > 0 else (run, 0.0)
        seconds = time.monotonic() - began
        left = self._work.rows - again.done.rows
        if not again.tally.rows or again is run:
            return _Measured(self._part, Pace(start, rows, warm), left)
        pace = Pace.of(start, again.tally.rows, seconds, before, self._pulse())
        start += max(0.0, warm - rows * pace.row_seconds)
        return _Measured(self._part, Pace(start, pace.rows, pace.seconds, pace.token_seconds, pace.end), left)

    def _answer(self, rows: int) -> tuple[Run, float]:
        """Answers so many more rows; the run, and when its first worker was ready."""
        run, manifest = self._run(rows), self._work.manifest
        chores: Chores[ShardPlan, Tally] = Chores(manifest.commit_shard)
        with _Watch(self._work.config.name, run, manifest.output) as screen:
            run.work(self._staff.pool, chores, screen, self._staff.first_rows)
        return run, screen.ready or time.monotonic()

    def _run(self, rows: int) -> Run:
        """A run over a sample with so many rows that nobody has answered yet, or with all rows."""
        work, asked = self._work, rows_of(self._part) + rows
        while True:
            self._part = TryOut(asked, by_chance=True, block=BLOCK_ROWS).choose(work.plans)
            run = Run(work.config.retry, work.plans, work.manifest, work.cluster.stop.check)
            begin_part(self._part, work.manifest, run)
            missing = rows - (run.rows - run.before.rows)
            if missing <= 0 or rows_of(self._part) == work.rows:
                return run
            asked += missing

    def _pulse(self) -> Pulse:
        """The worker's life signs, none of them from before its last row."""
        until = time.monotonic() + _HEARTBEATS
        while time.monotonic() < until:
            for _ in self._staff.pool.events(timeout=0.2):
                pass
        return self._staff.pool.pulse()


def _wanted(row_seconds: float, most: int) -> int:
    fewest, many = MEASURED_ROWS
    return min(most, max(fewest, min(many, int(MEASURED_SECONDS / max(row_seconds, 1e-6)))))


def _checked(plans: list[ShardPlan], check: Check, cluster: RayCluster, tell: Tell) -> Checked:
    """What is found of the input's rows, by tasks on the cluster."""
    lookout, chores = cluster.join(), Chores[Task, Checked](check, batch=1)
    rows = 0
    for task in tasks(plans):
        chores.put(task)
        rows += task[1].rows
    found = Checked()
    while not chores.idle:
        cluster.stop.check()
        lookout.news()
        found = sum(chores.done(timeout=0.2), found)
        tell(found.rows, rows)
    return found


def _forecast(work: OpenJob, staff: Staff, measured: _Measured, checked: Checked) -> Forecast:
    answers, config = CommittedRows.at(work.manifest.output.url), work.config
    write_tried_out(answers, measured.part)
    return Forecast.of(
        config.name,
        config.output.path,
        (work.rows, measured.left, len(work.plans)),
        Blocks.of(answers, measured.part, BLOCK_ROWS),
        measured.pace,
        checked,
        Crew(staff.room, staff.slot.cpus, staff.slot.gpus, config.cluster.price_per_hour),
    )
