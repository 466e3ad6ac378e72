"""The job that answers a batch, on the engine that serves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import InputConfig, JobConfig, OutputConfig
from pipeline.files.storage import Storage
from pipeline.input.shards import list_shards, plan_shard
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


def run_batch(data: Storage, place: Place, engine: Engine, stopped: Callable[[], bool]) -> Ran:
    """Answers what is left of a batch, until `stopped` says so. What is answered then is committed.

    Raises JobError, and WorkerError where the engine is broken or closed."""
    job = _job(data, place, engine.job)
    plans = [plan_shard(shard) for shard in list_shards(job.input.path)]
    prints = Fingerprint.of(job, engine.sha256(), plans)
    # A service with other settings begins anew: answers of two kinds are never mixed.
    out = f"{job.output.path}/{prints.digest}"
    job = job.model_copy(update={"output": OutputConfig(path=out, parsed=False)})
    manifest = Manifest(Storage.at(out), prints, {"name": job.name, "job": job.model_dump(mode="json")})
    run = Run(job.retry, plans, manifest, reached=lambda *_: "the batch ends" if stopped() else None)
    commit = begin_whole(manifest, run)
    if commit:
        _work(job, run, manifest, commit, engine.service)
    if run.ended:
        return Ran(False, run.tally, run.done)
    return Ran(True, run.tally, manifest.finish(plans))


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


def _work(job: JobConfig, run: Run, manifest: Manifest, commit: Commit, service: Served) -> None:
    about = service.about
    identity = Identity(about.model, manifest.fingerprint.digest, about.kernels)
    responder = responder_for(job, service, identity)
    pool = LocalPool(Worker(job, identity, manifest, responder), commit, responder.stop)
    with ProgressFile(manifest.output) as file:
        try:
            run.work(pool, pool, _Screen(run, file), FIRST_ROWS)
        finally:
            pool.close()


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
