"""One job from its input to _SUCCESS: plan, begin, work, finish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.config import JobConfig
from pipeline.errors import ClusterLost, WorkersExhausted
from pipeline.input.shards import ShardPlan
from pipeline.job.actors.answer_board import SharedAnswers
from pipeline.job.actors.cluster import Slot, nodes, share_out
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.job.actors.ray_tasks import Chores
from pipeline.job.actors.row_actor import RowWorker, WorkerFactory
from pipeline.job.actors.staff import staffed
from pipeline.job.beginning import Begin, Commit, begin_part, begin_whole, reopen
from pipeline.job.limits import Limits, never
from pipeline.job.run import Run
from pipeline.job.screen import JobScreen
from pipeline.model.models import LocalModel
from pipeline.output.committed import CommittedRows
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.tried_out import write_tried_out
from pipeline.plan.held import held_at, note_seconds
from pipeline.plan.kept_plans import keep_plans
from pipeline.plan.opened import OpenJob, opened, silent
from pipeline.plan.planned import Tell
from pipeline.plan.try_out import TryOut
from pipeline.report.summary import Ended, Summary, TriedOut
from pipeline.tally import Tally

RESTARTS = 3
"""How often a local cluster is started again for one command."""


@dataclass(frozen=True)
class JobWorkers:
    """Builds the workers of a job, each in its own process."""

    job: JobConfig
    fingerprint: Fingerprint

    def __call__(self, slot: Slot) -> RowWorker:
        from pipeline.job.build import build_worker

        job = self.job
        several = share_out(job.cluster, nodes())[1] > 1
        board = self._board if several and job.engine.reuse_answers else None
        return build_worker(job, self.fingerprint, threads=slot.threads, gpus=slot.gpus, board=board)

    def _board(self, kernels: str) -> SharedAnswers:
        """Kernels round differently: an answer is shared among workers that would give the same one."""
        return SharedAnswers(f"{self.fingerprint.digest} {kernels}")


Workers = Callable[[JobConfig, Fingerprint], WorkerFactory]


def run_job(
    job: JobConfig, workers: Workers = JobWorkers, model: LocalModel | None = None, tell: Tell = silent
) -> Summary | Ended:
    """Runs a job, or what is left of it, to its end or its limits.

    workers, model: stand-ins for the job's real workers and model. tell: called with a line that a person
    should read. Raises JobError; what was committed then stays, and the next call goes on from there.
    """
    return _drive(job, workers, model, begin_whole, tell)


def try_job(
    job: JobConfig,
    asked: TryOut,
    workers: Workers = JobWorkers,
    model: LocalModel | None = None,
    tell: Tell = silent,
) -> TriedOut:
    """Answers some rows of a job in the job's own output; as `run_job`.

    The job stays unfinished. Raises OutputError where it is finished already, or being retried.
    """
    began = time.monotonic()
    with opened(job, model, tell) as work:
        part = asked.choose(work.plans)
        done_now, _ = _see_through(work, workers, partial(begin_part, part), tell)
        totals = write_tried_out(CommittedRows.at(work.manifest.output.url), part)
        _refuse_without_answers(work.manifest, totals)
    return TriedOut(
        name=job.name,
        output=work.config.output.path,
        totals=totals,
        of=work.rows,
        how=str(asked),
        rows=done_now.rows,
        tokens=done_now.total_tokens,
        seconds=time.monotonic() - began,
        unread=work.note,
    )


def retry_job(
    job: JobConfig, workers: Workers = JobWorkers, model: LocalModel | None = None, tell: Tell = silent
) -> Summary | Ended:
    """Runs the failed rows of a finished job again; as `run_job`."""
    return _drive(job, workers, model, reopen, tell)


def _drive(
    job: JobConfig,
    workers: Workers,
    model: LocalModel | None,
    begin: Begin,
    tell: Tell,
) -> Summary | Ended:
    began = time.monotonic()
    limits = Limits.begin(job.limits)
    with opened(job, model, tell, retries=begin is reopen) as work:
        try:
            done_now, ended = _see_through(work, workers, begin, tell, limits)
        finally:
            note_seconds(work.manifest.output, time.monotonic() - began)
        if ended:
            return _end(work, ended, done_now, time.monotonic() - began)
        _refuse_without_answers(work.manifest, sum(work.manifest.finished_shards().values(), Tally()))
        totals = work.manifest.finish(work.plans)
    return Summary(
        name=job.name,
        output=work.config.output.path,
        shards=len(work.plans),
        held=tuple(held_at(work.manifest.output.url)),
        totals=totals,
        rows=done_now.rows,
        tokens=done_now.total_tokens,
        seconds=time.monotonic() - began,
        unread=work.note,
    )


def _end(work: OpenJob, run: Run, done_now: Tally, seconds: float) -> Ended:
    """A limit was reached: what there is, and what is missing."""
    return Ended(
        name=work.config.name,
        output=work.config.output.path,
        totals=run.done,
        of=work.rows,
        why=run.ended or "",
        rows=done_now.rows,
        tokens=done_now.total_tokens,
        seconds=seconds,
        unread=work.note,
    )


def _see_through(
    work: OpenJob, workers: Workers, begin: Begin, tell: Tell, limits: Limits | None = None
) -> tuple[Tally, Run | None]:
    """Works until all is committed, or a limit is reached: what this command has added, and the run that a
    limit ended, if one did. A lost local cluster is started again."""
    done, job, manifest, cluster = Tally(), work.config, work.manifest, work.cluster
    for restarts_left in reversed(range(RESTARTS + 1)):
        reached = limits.after(done) if limits else never
        run = Run(job.retry, work.plans, manifest, cluster.stop.check, reached)
        commit = begin(manifest, run)
        if not commit or run.idle:
            break
        keep_plans(manifest.output, work.plans)
        try:
            _work(job, run, manifest, workers(job, manifest.fingerprint), commit, cluster)
        except ClusterLost as loss:
            done += run.tally
            cluster.leave()
            if not cluster.local or not restarts_left:
                raise
            tell(f"{job.name}: {loss}. Ray is started again.")
            begin = begin_whole if begin is reopen else begin
        else:
            return done + run.tally, run if run.ended else None
    return done, None


def _refuse_without_answers(manifest: Manifest, totals: Tally) -> None:
    """A job in which every worker died of every row has found no machine that works: it isn't completed."""
    if not totals.rows or totals.succeeded:
        return
    if {code for code, _ in totals.errors.codes} == {"worker_crashed"}:
        raise WorkersExhausted(
            f"no row of {manifest.output.url} was answered: all {totals.rows:,} are worker_crashed. That is "
            "rather a machine's fault: see `nightherd doctor`, then `nightherd retry` or a new output"
        )


def _work(
    job: JobConfig, run: Run, manifest: Manifest, build: WorkerFactory, commit: Commit, ray: RayCluster
) -> None:
    """Works on Ray until every shard is committed."""
    assembly: Chores[ShardPlan, Tally] = Chores(commit)
    with JobScreen(job.name, run, manifest.output) as screen, staffed(job, build, ray) as staff:
        if staff.note:
            screen.say(staff.note)
        run.work(staff.pool, assembly, screen, staff.first_rows)
