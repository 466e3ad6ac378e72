"""The loop of one run: hand out rows, take in what is done, put shards together."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath

from pipeline.cluster import check_room, nodes, share_out
from pipeline.config import JobConfig
from pipeline.coordinator import Coordinator
from pipeline.interrupts import check_interrupted
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.progress_file import ProgressFile
from pipeline.ray_pool import Done, Event, Lost, RayPool
from pipeline.ray_tasks import Chores
from pipeline.records import WORK, footer_of, response_name
from pipeline.row_actor import WorkerFactory
from pipeline.shards import CHUNK_ROWS, Chunk, ShardPlan
from pipeline.tally import Tally

GROW_EVERY = 15.0
"""Seconds between looks for machines that have joined the cluster."""
FIRST_ROWS = 64
"""Rows of a CPU worker's chunks before its pace is known: something is committed soon, however slow it is."""
_STALL_SLACK = 60.0


class Run:
    """One run of a job: what is left of it, and who works on it. tally: what this run has added."""

    def __init__(self, job: JobConfig, plans: list[ShardPlan], manifest: Manifest) -> None:
        self._job, self._manifest = job, manifest
        self._plans = {plan.shard.name: plan for plan in plans}
        self._coordinator = Coordinator(job.retry.max_attempts)
        self._to_assemble: list[ShardPlan] = []
        self._before = Tally()
        self.tally = Tally()
        self._shards_done = 0

    @property
    def idle(self) -> bool:
        return self._coordinator.idle and not self._to_assemble

    def take_stock(self) -> None:
        """Finds what earlier runs have done, shard by shard."""
        finished = self._manifest.finished_shards()
        self._shards_done = len(finished)
        self._before = sum(finished.values(), Tally())
        begun = self._begun()
        for name in self._plans.keys() - finished.keys():
            done = self._manifest.finished_chunks(name) if name in begun else {}
            self._before += sum(done.values(), Tally())
            if not self._coordinator.add(self._plans[name], done):
                self._to_assemble.append(self._plans[name])

    def _begun(self) -> set[str]:
        """The shards that have chunks in the work folder."""
        folder = f"{WORK}/chunks"
        return {
            str(PurePosixPath(name).parent.relative_to(folder)) for name in self._manifest.output.list(folder)
        }

    def work(self, build: WorkerFactory, local: bool) -> None:
        """Works until every shard is committed."""
        machines = nodes()
        slot, size = share_out(self._job.cluster, machines)
        self._first_rows = CHUNK_ROWS if slot.gpus else FIRST_ROWS
        if local:
            check_room(slot, machines)
        self._pool = RayPool(build, slot, size, stall=self._job.retry.row_deadline + _STALL_SLACK)
        self._assembly: Chores[ShardPlan, Tally] = Chores(partial(_assemble, self._manifest))
        self._grown, self._fit = time.monotonic(), size
        total = sum(plan.rows for plan in self._plans.values())
        try:
            with (
                Progress(self._job.name, total, self._before.rows) as self._progress,
                ProgressFile(self._manifest.output) as self._file,
            ):
                self._until_done()
        finally:
            self._pool.close()

    def _until_done(self) -> None:
        while not (self.idle and self._assembly.idle):
            check_interrupted()
            for event in self._pool.events(timeout=0.2):
                self._to_assemble += self._take(event)
            self._hand_out()
            self._assemble()
            self._grow()
            self._report()

    def _take(self, event: Event) -> list[ShardPlan]:
        """Tells the coordinator what happened; returns the shards that are complete by it."""
        if isinstance(event, Done):
            self.tally += event.tally
            complete = self._coordinator.complete(event.worker, event.assignment)
            # A shard that was one chunk has been committed as it is.
            parts = [
                plan
                for plan in complete
                if Chunk(plan.shard.name, 0, plan.rows) not in event.assignment.chunks
            ]
            self._shards_done += len(complete) - len(parts)
            return parts
        return self._bury(event)

    def _bury(self, death: Lost) -> list[ShardPlan]:
        chunks = [chunk for a in self._coordinator.held(death.worker) for chunk in a.chunks]
        committed = self._committed(chunks)
        self.tally += sum(committed.values(), Tally())
        self._progress.say(f"{death.worker} is gone and will be replaced: {death.reason.splitlines()[0]}")
        return self._coordinator.lost(death.worker, death.blame, committed)

    def _committed(self, chunks: Iterable[Chunk]) -> dict[Chunk, Tally]:
        """Those that were committed although nobody could say so any more."""
        found: dict[Chunk, Tally] = {}
        for chunk in chunks:
            whole = chunk.rows == self._plans[chunk.shard].rows
            tally = self._whole(chunk) if whole else self._manifest.finished_chunks(chunk.shard).get(chunk)
            if tally:
                found[chunk] = tally
        return found

    def _whole(self, chunk: Chunk) -> Tally | None:
        try:
            return footer_of(self._manifest.output, response_name(self._plans[chunk.shard].shard)).tally
        except FileNotFoundError:
            return None

    def _hand_out(self) -> None:
        ready = self._pool.ready
        self._coordinator.workers = max(1, len(ready))
        self._coordinator.chunk_rows = self._rows_a_minute()
        # In turns, so that the last rows are spread over all workers.
        while ready:
            ready = [worker for worker in ready if self._give(worker)]

    def _rows_a_minute(self) -> int:
        """A worker's, but no less than it decodes at once, so that two assignments keep its batch full."""
        workers = self._coordinator.workers
        if not self._progress.rates.rows:
            return self._first_rows
        return int(max(60 * self._progress.rates.rows, self._pool.pulse().running) / workers)

    def _give(self, worker: str) -> bool:
        assignment = self._coordinator.assign(worker)
        if not assignment:
            return False
        plans = {chunk.shard: self._plans[chunk.shard] for chunk in assignment.chunks}
        self._pool.submit(worker, assignment, plans)
        return True

    def _assemble(self) -> None:
        for plan in self._to_assemble:
            self._assembly.put(plan)
        self._to_assemble.clear()
        self._shards_done += len(self._assembly.done())

    def _grow(self) -> None:
        """Uses machines that have joined the cluster."""
        if time.monotonic() - self._grown < GROW_EVERY or self._job.cluster.actors != "auto":
            return
        self._grown = time.monotonic()
        _, size = share_out(self._job.cluster, nodes())
        self._pool.size += max(0, size - self._fit)
        self._fit = max(size, self._fit)

    def _report(self) -> None:
        done = self._before + self.tally
        pulse = self._pool.pulse()
        self._progress.show(done.rows, pulse, len(self._pool.ready))
        self._file.write(
            rows_done=done.rows,
            rows_total=sum(plan.rows for plan in self._plans.values()),
            shards_done=self._shards_done,
            shards_total=len(self._plans),
            tally=done.to_dict(),
            rows_per_second=self._progress.rates.rows,
        )


def _assemble(manifest: Manifest, plan: ShardPlan) -> Tally:
    return manifest.commit_shard(plan)
