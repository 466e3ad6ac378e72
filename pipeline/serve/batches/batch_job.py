"""The job that answers a batch, on the engine that serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import InputConfig, JobConfig, OutputConfig
from pipeline.files.storage import Storage
from pipeline.input.shards import ShardPlan, list_shards, plan_shard
from pipeline.job.beginning import Commit, begin_whole
from pipeline.job.responder import responder_for
from pipeline.job.run import Run
from pipeline.job.worker import Identity, Worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.pulse import Pulse
from pipeline.report.progress_file import ProgressFile
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.respond.generative_service import GenerativeService
from pipeline.serve.batches.batch_store import Place
from pipeline.serve.batches.local_pool import LocalPool
from pipeline.serve.batches.probation import DEATHS, Probation
from pipeline.tally import Tally

Served = GenerativeService | EmbeddingService
FIRST_ROWS = 64
"""Rows of a chunk before the pace is known."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers: a service, the job file that it was made from, and the hash of its model."""

    service: Served
    job: JobConfig
    sha256: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Ran:
    """complete: every row is committed. added: by this run. done: by all of them."""

    complete: bool
    added: Tally
    done: Tally


def run_batch(
    data: Storage, place: Place, engine: Engine, stopped: Callable[[], bool], deaths: int = 0
) -> Ran:
    """Answers what is left of a batch, until `stopped` says so. What is answered then is committed.

    deaths: of processes that worked on it, of late. Raises JobError, and WorkerError where the engine is
    broken or closed."""
    batch = _BatchRun.of(data, place, engine, stopped)
    run, commit = batch.begin()
    added = Tally()
    if commit and deaths >= DEATHS:
        added = batch.try_rows(place)
        run, commit = batch.begin()
    if commit:
        batch.work(run, commit)
    if run.ended:
        return Ran(False, added + run.tally, run.done)
    return Ran(True, added + run.tally, batch.manifest.finish(batch.plans))


@dataclass(frozen=True, slots=True)
class _BatchRun:
    """One process's part in a batch's job."""

    job: JobConfig
    service: Served
    plans: list[ShardPlan]
    manifest: Manifest
    data: Storage
    stopped: Callable[[], bool]

    @classmethod
    def of(cls, data: Storage, place: Place, engine: Engine, stopped: Callable[[], bool]) -> _BatchRun:
        job = _job(data, place, engine.job)
        plans = [plan_shard(shard) for shard in list_shards(job.input.path)]
        prints = Fingerprint.of(job, engine.sha256(), plans)
        # A service with other settings begins anew: answers of two kinds are never mixed.
        output = OutputConfig(path=f"{job.output.path}/{prints.digest}", parsed=False)
        job = job.model_copy(update={"output": output})
        about = {"name": job.name, "job": job.model_dump(mode="json")}
        manifest = Manifest(Storage.at(output.path), prints, about)
        return cls(job, engine.service, plans, manifest, data, stopped)

    def begin(self) -> tuple[Run, Commit | None]:
        """The run of what is left; with it None, where nothing is."""
        run = Run(self.job.retry, self.plans, self.manifest, reached=self._reached)
        return run, begin_whole(self.manifest, run)

    def _reached(self, tally: Tally, pulse: Pulse) -> str | None:
        return "the batch ends" if self.stopped() else None

    def work(self, run: Run, commit: Commit) -> None:
        worker, stop = self._worker()
        pool = LocalPool(worker, commit, stop)
        with ProgressFile(self.manifest.output) as file:
            try:
                run.work(pool, pool, _Screen(run, file), FIRST_ROWS)
            finally:
                pool.close()

    def try_rows(self, place: Place) -> Tally:
        worker, _ = self._worker()
        most = self.job.retry.max_attempts
        probation = Probation(self.data, place, self.manifest, worker, self.service, most)
        return sum((probation.work(plan, self.stopped) for plan in self.plans), Tally())

    def _worker(self) -> tuple[Worker, Callable[[], None]]:
        """A worker on the service's engine, and what ends its calls."""
        about = self.service.about
        identity = Identity(about.model, self.manifest.fingerprint.digest, about.kernels)
        responder = responder_for(self.job, self.service, identity)
        return Worker(self.job, identity, self.manifest, responder), responder.stop


def _job(data: Storage, place: Place, job: JobConfig) -> JobConfig:
    """Of the service's job file, what a batch's job has in common with it."""
    return job.model_copy(
        update={
            "name": place.id,
            "input": InputConfig(path=f"{data.url}/{place.input}"),
            "output": OutputConfig(path=f"{data.url}/{place.out}", parsed=False),
            "request": job.request.model_copy(update={"endpoint": None, "template": None}),
            # All rows may fail: a batch is completed by that, too.
            "retry": job.retry.model_copy(update={"max_failures": 1.0}),
        }
    )


class _Screen:
    """Tells nobody but the progress file: messages may hold what a client has written."""

    def __init__(self, run: Run, file: ProgressFile) -> None:
        self._run, self._file = run, file
        self._began = time.monotonic()

    @property
    def rows_per_second(self) -> float:
        return self._run.tally.rows / max(1e-3, time.monotonic() - self._began)

    def say(self, message: str) -> None: ...

    def show(self, run: Run, pulse: Pulse, workers: int) -> None:
        self._file.write(
            rows_done=run.done.rows,
            rows_total=run.rows,
            shards_done=run.shards_done,
            shards_total=run.shards,
            tally=run.done.to_dict(),
            rows_per_second=self.rows_per_second,
        )
