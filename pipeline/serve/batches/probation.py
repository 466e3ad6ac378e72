"""Rows on probation: some of them may be why the process died, again and again.

Where a worker's death can be told to a job's driver, its coordinator finds the row. Here the engine's process
is the service itself: what is known of a row that ends it has to be written before it is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config import Endpoint
from pipeline.files.storage import Storage
from pipeline.input.shards import CHUNK_ROWS, Chunk, ShardPlan
from pipeline.job.backlog import gaps
from pipeline.job.coordinator import HELD
from pipeline.job.worker import Worker
from pipeline.output.manifest import Manifest
from pipeline.request.schema import parse_request
from pipeline.respond.service import Service
from pipeline.serve.batches import marks
from pipeline.serve.batches.batch_store import Place
from pipeline.tally import Tally

DEATHS = 2
"""Deaths in a row after which rows are tried one by one."""
ROWS = HELD * CHUNK_ROWS
"""As many were under way at most."""
_CONTROL: dict[str, tuple[Endpoint, dict[str, object]]] = {
    "generate": ("/v1/completions", {"prompt": "Hello", "max_tokens": 2}),
    "embed": ("/v1/embeddings", {"input": "Hello"}),
}


@dataclass(frozen=True, slots=True)
class Probation:
    """Tries the rows that were under way one by one, and notes each beforehand.

    A row that was noted `most` times, and never came back, is answered `worker_crashed`. So that a machine's
    fault is never a row's, the process answers a request of its own before it may speak against any.
    """

    data: Storage
    place: Place
    manifest: Manifest
    worker: Worker
    service: Service
    most: int

    def work(self, plan: ShardPlan, stopped: Callable[[], bool]) -> Tally:
        """What it has added. Raises as `Worker.process` does."""
        added, tries = Tally(), self._tries()
        if stopped():
            return added
        self._prove()
        for row in sorted(self._left(plan), key=lambda row: (tries[row], row)):
            if stopped():
                break
            added += self._try(plan, row, tries[row])
        return added

    def _try(self, plan: ShardPlan, row: int, tries: int) -> Tally:
        condemned = tries >= self.most
        if not condemned:
            marks.put(self.data, f"{self.place.tries}/{row}/{tries}", {})
        chunk = Chunk(plan.shard.name, row, row + 1)
        return self.worker.process(plan, chunk, min(tries + 1, self.most), condemned=condemned)

    def _prove(self) -> None:
        endpoint, body = _CONTROL[self.service.kind]
        self.service.ask(parse_request(endpoint, body), "control").result.result()

    def _left(self, plan: ShardPlan) -> list[int]:
        done = self.manifest.finished_chunks(plan.shard.name)
        left = (row for start, stop in gaps(plan.rows, done) for row in range(start, stop))
        return [row for row, _ in zip(left, range(ROWS), strict=False)]

    def _tries(self) -> Counter[int]:
        return Counter(int(name.split("/")[-2]) for name in self.data.list(self.place.tries))
