"""One batch, from wherever it is to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader

from pipeline.errors import JobError, StorageError
from pipeline.serve.batches.batch import Batch, usage_of
from pipeline.serve.batches.batch_job import Engine, run_batch
from pipeline.serve.batches.batch_store import BatchStore, Place
from pipeline.serve.batches.checked import MOST_REQUESTS, Checked, Problem, check
from pipeline.serve.batches.results import Results
from pipeline.tally import Tally

Count = Callable[[str, Tally], None]
"""Told what an owner's rows have cost."""

_log = logging.getLogger("nightherd.serve")


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with batches. Each step leaves a mark, and is not done again where the mark is there."""

    store: BatchStore
    engine: Engine
    count: Count = lambda owner, tally: None
    most: int = MOST_REQUESTS

    def fits(self, batch: Batch) -> bool:
        """Whether its requests are for the model that is served here."""
        return batch.validated is None or batch.validated["model"] == self.engine.service.about.model

    def carry(self, place: Place, stopped: Callable[[], bool], deaths: int = 0) -> None:
        """Brings a batch to its end, unless `stopped` says that it is to be left.

        deaths: of processes that worked on it, of late.
        Raises StorageError, and WorkerError where the engine is broken or closed: others can go on then."""
        try:
            self._carry(place, stopped, deaths)
        except StorageError:
            raise
        except JobError:
            _log.exception("batch %s failed", place.id)
            self._fail(place, Problem("server_error", "the service failed to run this batch"))

    def _carry(self, place: Place, stopped: Callable[[], bool], deaths: int) -> None:
        batch = self.store.load(place)
        if batch is None or batch.finished:
            return
        if not batch.validated and batch.outcome != "cancelled":
            checked = self._check(place, batch)
            if checked.problems:
                self._fail(place, *checked.problems)
                return
            self.store.validate(place, checked.requests, self.engine.service.about.model)
        self._run(place, stopped, deaths)
        batch = self.store.load(place)
        if batch and batch.outcome:
            facts = Results(self.store.data, place, batch).write()
            self.store.finish(place, **facts)
            counts = f"{facts['completed']} completed, {facts['failed']} failed"
            _log.info("batch %s %s: %s key=%s", place.id, batch.outcome, counts, batch.request.owner)

    def _check(self, place: Place, batch: Batch) -> Checked:
        names = self.engine.service.about.names
        with self.store.data.open_input(place.input) as file:
            return check(BufferedReader(file, 1 << 20), batch.request.endpoint, names, self.most)

    def _run(self, place: Place, stopped: Callable[[], bool], deaths: int) -> None:
        """Where the ending is decided already, what workers have left as drafts is committed, and no more."""
        batch = self.store.load(place)
        if not batch or not batch.validated or not self.fits(batch) or batch.outcome == "completed":
            return
        ends = batch.outcome is not None
        ran = run_batch(self.store.data, place, self.engine, lambda: ends or stopped(), deaths)
        self.count(batch.request.owner, ran.added)
        if ran.complete:
            self.store.end(place, "completed", completed=ran.done.succeeded, failed=ran.done.failed)

    def _fail(self, place: Place, *problems: Problem) -> None:
        outcome = self.store.end(place, "failed")
        facts = {"completed": 0, "failed": 0, "usage": usage_of(Tally())}
        self.store.finish(place, **facts, errors=[problem.record for problem in problems])
        _log.info("batch %s %s: %s", place.id, outcome, ", ".join(sorted({p.code for p in problems})))
