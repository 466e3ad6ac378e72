"""One worker in this process, on the engine that serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

from pipeline.errors import StorageError, WorkerError
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.job.actors.pool import Done, Event
from pipeline.job.assignment import Assignment
from pipeline.job.coordinator import HELD
from pipeline.job.worker import Worker
from pipeline.pulse import Pulse
from pipeline.tally import Tally

SAVE_EVERY = 10.0
"""Seconds between drafts of what is answered: about what is lost when the process dies."""
_CHUNKS = 16
"""Chunks that are worked on together: after a restart, those between others that are committed are small."""
_WORKER, _MACHINE = "this process", "this machine"


class LocalPool:
    """A `Pool`, and the run's `Assembly`: a shard is put together at once. Close it."""

    def __init__(
        self, worker: Worker, commit: Callable[[ShardPlan], Tally], stop: Callable[[], None]
    ) -> None:
        """commit: puts a shard together. stop: ends the worker's calls."""
        self._worker, self._commit, self._stop = worker, commit, stop
        self._assignments = ThreadPoolExecutor(HELD, "batch assignments")
        self._chunks = ThreadPoolExecutor(HELD * _CHUNKS, "batch chunks")
        self._events: SimpleQueue[Event | BaseException] = SimpleQueue()
        self._assembled: list[Tally] = []
        self._saved = time.monotonic()

    @property
    def ready(self) -> dict[str, str]:
        return {_WORKER: _MACHINE}

    @property
    def machines(self) -> dict[str, str]:
        return {_MACHINE: _MACHINE}

    @property
    def kernels(self) -> dict[str, str]:
        return {_MACHINE: self._worker.kernels}

    def avoid(self, machine: str) -> None:
        raise WorkerError(f"{machine} is the only one that there is")

    def submit(self, worker: str, assignment: Assignment, plans: dict[str, ShardPlan]) -> None:
        def settle(work: Future[Tally]) -> None:
            failure = work.exception()
            self._events.put(failure or Done(worker, assignment, work.result()))

        self._assignments.submit(self._work, assignment, plans).add_done_callback(settle)

    def events(self, timeout: float) -> Iterator[Event]:
        """Raises what a call of the worker raised: with the one engine, a broken one ends the run."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self._save()
        with suppress(Empty):
            event = self._events.get(timeout=timeout)
            if isinstance(event, BaseException):
                raise event
            yield event

    def end(self) -> None:
        with suppress(StorageError):
            self._worker.end()

    def pulse(self) -> Pulse:
        return self._worker.pulse()

    @property
    def idle(self) -> bool:
        return True

    def put(self, plan: ShardPlan) -> None:
        self._assembled.append(self._commit(plan))

    def done(self) -> list[Tally]:
        done, self._assembled = self._assembled, []
        return done

    def close(self) -> None:
        """Keeps drafts of what is answered, and ends the rest."""
        self.end()
        self._stop()
        self._chunks.shutdown(wait=True, cancel_futures=True)
        self._assignments.shutdown(wait=True)

    def _work(self, assignment: Assignment, plans: dict[str, ShardPlan]) -> Tally:
        def process(chunk: Chunk) -> Tally:
            return self._worker.process(plans[chunk.shard], chunk, assignment.attempt)

        return sum(self._chunks.map(process, assignment.chunks), Tally())

    def _save(self) -> None:
        # A draft saves work, and no more: the commit fails loudly where storage is out of order.
        with suppress(StorageError):
            self._worker.save()
        self._saved = time.monotonic()
