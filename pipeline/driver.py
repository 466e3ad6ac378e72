"""One job from its input to _SUCCESS: plan, begin, work, finish."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.actors.answer_board import SharedAnswers
from pipeline.actors.cluster import Node, Slot, check_room, nodes, share_out
from pipeline.actors.interrupts import check_interrupted
from pipeline.actors.ray_cluster import RayCluster
from pipeline.actors.ray_pool import RayPool
from pipeline.actors.ray_tasks import Chores
from pipeline.actors.row_actor import RowWorker, WorkerFactory
from pipeline.answer.shared_schema import shared_schema
from pipeline.config import ClusterConfig, JobConfig
from pipeline.errors import ClusterLost, ConfigError, InputError, ModelError, WorkersExhausted
from pipeline.model.models import LocalModel, fetch_model
from pipeline.native.cure import with_cuda
from pipeline.output.amendment import Amendment
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.preflight import check_model
from pipeline.report.summary import Summary
from pipeline.run import FIRST_ROWS, Run
from pipeline.screen import JobScreen
from pipeline.shard.shards import CHUNK_ROWS, Shard, ShardPlan, list_input, plan_shard
from pipeline.storage import Storage
from pipeline.tally import Tally
from pipeline.worker import check_input

PLANNED_HERE = 32
"""Up to so many shards are planned by the driver itself, before Ray is started."""
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


def retry_job(job: JobConfig, workers: Workers = JobWorkers, model: LocalModel | None = None) -> Summary:
    """Runs the failed rows of a finished job again, and prints its new summary; as `run_job`."""
    return _drive(job, workers, model, _reopen)


def _drive(
    job: JobConfig,
    workers: Workers,
    model: LocalModel | None,
    open_output: Open,
) -> Summary:
    job = anchored(job)
    began = time.monotonic()
    listing = list_input(job.input.path, job.output.path)
    if listing.note:
        print(listing.note, flush=True)
    shards = listing.shards
    fetched = model or fetch_model(job.model)
    with RayCluster(job.cluster) as cluster:
        plans = _plan(shards, cluster)
        _check(job, plans)
        manifest = _manifest(job, fetched, plans)
        if model is None:
            check_model(job, fetched, manifest.fingerprint)
        with _withdrawn(manifest):
            done_now = _see_through(job, plans, manifest, workers, open_output, cluster)
        _refuse_without_answers(manifest)
        totals = manifest.finish(plans)
    summary = Summary(
        name=job.name,
        output=job.output.path,
        shards=len(plans),
        totals=totals,
        rows=done_now.rows,
        tokens=done_now.total_tokens,
        seconds=time.monotonic() - began,
        unread=listing.note,
    )
    print(summary)
    return summary


def _see_through(
    job: JobConfig,
    plans: list[ShardPlan],
    manifest: Manifest,
    workers: Workers,
    open_output: Open,
    cluster: RayCluster,
) -> Tally:
    """Works until all is committed; what this command has added. A lost local cluster is started again."""
    done = Tally()
    for restarts_left in reversed(range(RESTARTS + 1)):
        run = Run(job.retry, plans, manifest, check_interrupted)
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
            open_output = _begin
        else:
            return done + run.tally
    return done


def _refuse_without_answers(manifest: Manifest) -> None:
    """A job in which every worker died of every row has found no machine that works: it isn't completed."""
    totals = sum(manifest.finished_shards().values(), Tally())
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


def _reopen(manifest: Manifest, run: Run) -> Commit:
    manifest.reopen()
    return _amend(manifest, run)


def _amend(manifest: Manifest, run: Run) -> Commit:
    amendment = Amendment(manifest, manifest.retry)
    manifest.output.sweep()
    run.take_failed(amendment)
    return amendment.commit


def anchored(job: JobConfig) -> JobConfig:
    """The job with its local paths made absolute: workers start in folders of their own."""

    def path(section: str) -> dict[str, object]:
        value = getattr(job, section).path
        absolute = value if "://" in value or "::" in value else str(Path(value).expanduser().absolute())
        return {section: getattr(job, section).model_copy(update={"path": absolute})}

    return job.model_copy(update=path("model") | path("input") | path("output"))


def _plan(shards: list[Shard], cluster: RayCluster) -> list[ShardPlan]:
    """The plans of all shards, in the order of their names; large ones are planned first."""
    by_size = sorted(shards, key=lambda shard: -shard.size)
    if len(shards) <= PLANNED_HERE:
        with ThreadPoolExecutor(8) as threads:
            plans = list(threads.map(plan_shard, by_size))
    else:
        lookout = cluster.join()
        chores: Chores[Shard, ShardPlan] = Chores(plan_shard)
        for shard in by_size:
            chores.put(shard)
        plans = []
        while not chores.idle:
            check_interrupted()
            lookout.news()
            plans += chores.done(timeout=0.2)
    return sorted(plans, key=lambda plan: plan.shard.name)


def _check(job: JobConfig, plans: list[ShardPlan]) -> None:
    """Refuses shards whose columns make no request, before any worker is started."""
    for plan in {(plan.columns, *plan.partition): plan for plan in reversed(plans)}.values():
        check_input(job, plan)


def _manifest(job: JobConfig, model: LocalModel, plans: list[ShardPlan]) -> Manifest:
    about = {"name": job.name, "input": job.input.path, "job": job.model_dump(mode="json")}
    shared = shared_schema(job, plans)
    prints = Fingerprint.of(job, model.sha256, plans, shared.to_json() if shared else None)
    return Manifest(Storage.at(job.output.path), prints, about)


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


@contextmanager
def _withdrawn(manifest: Manifest) -> Iterator[None]:
    """A job that turns out to be wrong before anything is answered leaves its output as it was."""
    try:
        yield
    except (ConfigError, InputError, ModelError):
        manifest.withdraw()
        raise
