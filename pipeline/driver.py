"""One job from its input to _SUCCESS: plan, begin, work, finish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.actors.answer_board import SharedAnswers
from pipeline.actors.cluster import Node, Slot, check_room, nodes, share_out
from pipeline.actors.interrupts import check_interrupted
from pipeline.actors.ray_cluster import RayCluster
from pipeline.actors.ray_pool import RayPool
from pipeline.actors.ray_tasks import Chores
from pipeline.actors.row_actor import RowWorker, WorkerFactory
from pipeline.config import ClusterConfig, JobConfig
from pipeline.errors import ClusterLost, OutputError, WorkersExhausted
from pipeline.model.models import LocalModel
from pipeline.native.cure import with_cuda
from pipeline.output.amendment import Amendment
from pipeline.output.committed import CommittedRows
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.tried_out import write_tried_out
from pipeline.plan.opened import OpenJob, opened
from pipeline.plan.try_out import Part, TryOut
from pipeline.report.summary import Summary, TriedOut
from pipeline.run import FIRST_ROWS, Run
from pipeline.screen import JobScreen
from pipeline.shard.shards import CHUNK_ROWS, ShardPlan
from pipeline.tally import Tally

RESTARTS = 3
"""How often a local cluster is started again for one command."""
_STALL_SLACK = 60.0
_NO_GPU = (
    "This machine has a GPU, but llama.cpp was compiled without GPU support: the job runs on the CPU. "
    f"To use an NVIDIA GPU: {with_cuda()}"
)


@dataclass(frozen=True)
class JobWorkers:
    """Builds the workers of a job, each in its own process."""

    job: JobConfig
    fingerprint: Fingerprint

    def __call__(self, slot: Slot) -> RowWorker:
        from pipeline.build import build_worker

        job = self.job
        several = share_out(job.cluster, nodes())[1] > 1
        board = self._board if several and job.engine.reuse_answers else None
        return build_worker(job, self.fingerprint, threads=slot.threads, gpus=slot.gpus, board=board)

    def _board(self, kernels: str) -> SharedAnswers:
        """Kernels round differently: an answer is shared among workers that would give the same one."""
        return SharedAnswers(f"{self.fingerprint.digest} {kernels}")


Workers = Callable[[JobConfig, Fingerprint], WorkerFactory]
Commit = Callable[[ShardPlan], Tally]
"""Puts a shard whose rows have all come back into its place."""
Open = Callable[[Manifest, Run], Commit | None]
"""Begins with an output, or goes on with it; None where nothing is left to do."""


def run_job(job: JobConfig, workers: Workers = JobWorkers, model: LocalModel | None = None) -> Summary:
    """Runs a job to its end, or what is left of it, and prints its summary.

    workers, model: stand-ins for the job's real workers and model. Raises JobError; what was committed
    then stays, and the next call goes on from there.
    """
    return _drive(job, workers, model, _begin)


def try_job(
    job: JobConfig, asked: TryOut, workers: Workers = JobWorkers, model: LocalModel | None = None
) -> TriedOut:
    """Answers some rows of a job in the job's own output, and prints its summary; as `run_job`.

    The job stays unfinished. Raises OutputError where it is finished already, or being retried.
    """
    began = time.monotonic()
    with opened(job, model) as work:
        part = asked.choose(work.plans)
        done_now = _see_through(work, workers, partial(_begin_part, part))
        totals = write_tried_out(CommittedRows.at(work.manifest.output.url), part)
        _refuse_without_answers(work.manifest, totals)
    summary = TriedOut(
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
    print(summary)
    return summary


def retry_job(job: JobConfig, workers: Workers = JobWorkers, model: LocalModel | None = None) -> Summary:
    """Runs the failed rows of a finished job again, and prints its new summary; as `run_job`."""
    return _drive(job, workers, model, _reopen)


def _drive(
    job: JobConfig,
    workers: Workers,
    model: LocalModel | None,
    open_output: Open,
) -> Summary:
    began = time.monotonic()
    with opened(job, model) as work:
        done_now = _see_through(work, workers, open_output)
        _refuse_without_answers(work.manifest, sum(work.manifest.finished_shards().values(), Tally()))
        totals = work.manifest.finish(work.plans)
    summary = Summary(
        name=job.name,
        output=work.config.output.path,
        shards=len(work.plans),
        totals=totals,
        rows=done_now.rows,
        tokens=done_now.total_tokens,
        seconds=time.monotonic() - began,
        unread=work.note,
    )
    print(summary)
    return summary


def _see_through(work: OpenJob, workers: Workers, open_output: Open) -> Tally:
    """Works until all is committed; what this command has added. A lost local cluster is started again."""
    done, job, manifest, cluster = Tally(), work.config, work.manifest, work.cluster
    for restarts_left in reversed(range(RESTARTS + 1)):
        run = Run(job.retry, work.plans, manifest, check_interrupted)
        commit = open_output(manifest, run)
        if not commit or run.idle:
            break
        try:
            _work(job, run, manifest, workers(job, manifest.fingerprint), commit, cluster)
        except ClusterLost as loss:
            done += run.tally
            cluster.leave()
            if not cluster.local or not restarts_left:
                raise
            print(f"{job.name}: {loss}. Ray is started again.", file=sys.stderr)
            open_output = _begin if open_output is _reopen else open_output
        else:
            return done + run.tally
    return done


def _refuse_without_answers(manifest: Manifest, totals: Tally) -> None:
    """A job in which every worker died of every row has found no machine that works: it isn't completed."""
    if not totals.rows or totals.succeeded:
        return
    if {code for code, _ in totals.errors.codes} == {"worker_crashed"}:
        raise WorkersExhausted(
            f"no row of {manifest.output.url} was answered: all {totals.rows:,} are worker_crashed. That is "
            "rather a machine's fault: see `nightherd doctor`, then `nightherd retry` or a new output"
        )


def _begin(manifest: Manifest, run: Run) -> Commit | None:
    """None where the job is finished already. A retry that was stopped goes on."""
    if manifest.begin():
        return None
    if manifest.retry:
        return _amend(manifest, run)
    manifest.output.sweep()
    run.take_stock()
    return manifest.commit_shard


def _begin_part(part: Part, manifest: Manifest, run: Run) -> Commit:
    output = manifest.output.url
    if manifest.begin():
        raise OutputError(
            f"output {output}: the job is finished, and every row has its answer: nothing is left to try "
            f"out. See nightherd report {output}, or choose another output"
        )
    if manifest.retry:
        raise OutputError(
            f"output {output}: its failed rows are being retried: nightherd retry {output} goes on with it"
        )
    manifest.output.sweep()
    run.take_stock(part)
    return manifest.commit_shard


def _reopen(manifest: Manifest, run: Run) -> Commit:
    manifest.reopen()
    return _amend(manifest, run)


def _amend(manifest: Manifest, run: Run) -> Commit:
    amendment = Amendment(manifest, manifest.retry)
    manifest.output.sweep()
    run.take_failed(amendment)
    return amendment.commit


def _work(
    job: JobConfig, run: Run, manifest: Manifest, build: WorkerFactory, commit: Commit, ray: RayCluster
) -> None:
    """Works on Ray until every shard is committed."""
    lookout = ray.join()
    machines = lookout.sight.nodes
    cluster = _usable(job.cluster, machines) if ray.local else job.cluster
    slot, _ = share_out(cluster, machines)
    if ray.local:
        check_room(slot, machines)
    assembly: Chores[ShardPlan, Tally] = Chores(commit)
    pool = RayPool(
        build,
        slot,
        lambda nodes: share_out(cluster, nodes)[1],
        lookout,
        job.cluster.patience,
        stall=job.retry.row_deadline * job.retry.max_attempts + _STALL_SLACK,
    )
    with JobScreen(job.name, run, manifest.output) as screen:
        if cluster != job.cluster:
            screen.say(_NO_GPU)
        try:
            run.work(pool, assembly, screen, CHUNK_ROWS if slot.gpus else FIRST_ROWS)
        finally:
            # Before anything else: whoever stops a job may not wait for long.
            pool.close()


def _usable(cluster: ClusterConfig, machines: Sequence[Node]) -> ClusterConfig:
    """`cluster` without GPUs where that is left to us and this machine's llama.cpp can't use them."""
    if cluster.gpus_per_actor != "auto" or not any(node.gpus for node in machines):
        return cluster
    from pipeline.engine.llama_devices import sees_gpu

    return cluster if sees_gpu() else cluster.model_copy(update={"gpus_per_actor": 0.0})
