"""A worker inside a Ray actor's process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

import ray

from pipeline.errors import StorageError
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.job.actors.cluster import Slot
from pipeline.job.actors.last_words import keep_last_words
from pipeline.job.actors.worker_metrics import WorkerMetrics
from pipeline.job.assignment import Assignment
from pipeline.pulse import Pulse
from pipeline.tally import Tally

SAVE_EVERY = 10.0
"""Seconds between drafts of what is answered: about what is lost when the process dies."""
CHUNKS_AT_ONCE = 32
"""Small chunks of one assignment that are worked on together, so that they fill the batch."""


class RowWorker(Protocol):
    """What `pipeline.job.worker.Worker` offers; tests bring smaller ones.

    notes: what a person should know of the worker's machine, a line each. kernels: the id of those it uses.
    """

    notes: tuple[str, ...]

    @property
    def kernels(self) -> str: ...

    def process(self, plan: ShardPlan, chunk: Chunk, attempt: int, condemned: bool) -> Tally: ...
    def prove(self, plan: ShardPlan, chunk: Chunk) -> Tally: ...
    def pulse(self) -> Pulse: ...
    def save(self) -> None: ...
    def end(self) -> None: ...


WorkerFactory = Callable[[Slot], RowWorker]
"""Called in the actor's process; picklable. Its JobErrors stop the job, others count as deaths."""


Stage = Literal["new", "starting", "ready"]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Life signs.

    holding: the ids of the assignments under way.
    node: the machine, in hexadecimal.
    notes, kernels: as `RowWorker`'s.
    """

    pulse: Pulse
    holding: frozenset[int]
    node: str
    stage: Stage
    notes: tuple[str, ...] = ()
    pid: int = 0
    kernels: str = ""


def settle(slot: Slot) -> None:
    """Makes this actor's process ready for an engine on `slot`."""
    keep_last_words()
    # Ray exports it as 1 for most actors; threads are set by the slot instead.
    os.environ.pop("OMP_NUM_THREADS", None)
    if not slot.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


class RowActor:
    """Runs in its own process. `work` and `pulse` may be called at once; `work` comes after `start`."""

    def __init__(self, build: WorkerFactory, slot: Slot, job: str) -> None:
        """job: its name, for the metrics."""
        self._build = build
        self._slot = slot
        self._metrics = WorkerMetrics(job)
        self._worker: RowWorker | None = None
        self._stage: Stage = "new"
        self._holding: set[int] = set()
        self._lock = threading.Lock()
        settle(slot)

    def start(self) -> Heartbeat:
        """Builds the worker. Outside of `__init__`, where Ray would turn an error into an actor's death."""
        self._stage = "starting"
        self._worker = self._build(self._slot)
        self._stage = "ready"
        threading.Thread(target=self._keep_saving, daemon=True).start()
        return RowActor.pulse(self)

    def save(self) -> None:
        """Keeps drafts of what is answered of the assignments under way, as far as storage lets it."""
        if self._worker:
            # A draft saves work, and no more: the commit fails loudly where storage is out of order.
            with suppress(StorageError):
                self._worker.save()

    def end(self) -> None:
        """Keeps drafts a last time. When it returns nothing is committed any more."""
        if self._worker:
            with suppress(StorageError):
                self._worker.end()

    def _keep_saving(self) -> None:
        while True:
            time.sleep(SAVE_EVERY)
            self.save()

    def work(self, assignment: Assignment, plans: dict[str, ShardPlan]) -> Tally:
        """Answers and commits an assignment's chunks. plans: of all their shards, by name."""

        worker = self._worker
        assert worker, "it has not been started"

        def process(chunk: Chunk) -> Tally:
            if assignment.control:
                return worker.prove(plans[chunk.shard], chunk)
            began = time.monotonic()
            tally = worker.process(
                plans[chunk.shard], chunk, assignment.attempt, condemned=assignment.condemned
            )
            self._metrics.committed(time.monotonic() - began)
            return tally

        with self._lock:
            self._holding.add(assignment.id)
        try:
            with ThreadPoolExecutor(min(CHUNKS_AT_ONCE, len(assignment.chunks))) as threads:
                return sum(threads.map(process, assignment.chunks), Tally())
        finally:
            with self._lock:
                self._holding.discard(assignment.id)

    def pulse(self) -> Heartbeat:
        with self._lock:
            holding = frozenset(self._holding)
        pulse, notes = (self._worker.pulse(), self._worker.notes) if self._worker else (Pulse(), ())
        self._metrics.beat(pulse)
        node = ray.get_runtime_context().get_node_id()
        kernels = self._worker.kernels if self._worker else ""
        return Heartbeat(pulse, holding, node, self._stage, notes, os.getpid(), kernels)
