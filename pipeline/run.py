"""The loop of one run: hand out rows, take in what is done, put shards together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

from pipeline.actors.pool import Assembly, Done, Event, Lost, Note, Pool
from pipeline.config import RetryConfig
from pipeline.coordinator import Coordinator, gaps
from pipeline.errors import TooManyFailures
from pipeline.output.amendment import Amendment
from pipeline.output.manifest import Manifest
from pipeline.output.records import WORK, chunk_name, footer_of, response_name
from pipeline.respond.responders import Pulse
from pipeline.shard.shards import CHUNK_ROWS, Chunk, ShardPlan
from pipeline.tally import Tally

FIRST_ROWS = 64
"""Rows of a CPU worker's chunks before its pace is known: something is committed soon, however slow it is."""
TELL_AGAIN = 10
"""Times as many rows as were told of must have failed before a run speaks of failures again."""
JUDGED_ROWS = 1000
"""Answers that a job has to have before it is given up for its failures."""


class Screen(Protocol):
    """Where a run shows how it is getting on."""

    def say(self, message: str) -> None:
        """A line that stays."""

    def show(self, run: Run, pulse: Pulse, workers: int) -> None:
        """The state of things now, many times a second."""

    @property
    def rows_per_second(self) -> float:
        """The pace of late; 0 while it isn't known."""


class Run:
    """One run of a job: what is left of it, and who works on it. It knows no clock and no Ray.

    tally: what this run has added; before: what was committed when it began.
    """

    def __init__(
        self,
        retry: RetryConfig,
        plans: Iterable[ShardPlan],
        manifest: Manifest,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """check: called in each turn of the loop; what it raises ends the run."""
        self._manifest, self._check = manifest, check
        self._plans = {plan.shard.name: plan for plan in plans}
        self._coordinator = Coordinator(retry.max_attempts)
        self._most_failures = retry.max_failures
        self._to_assemble: list[ShardPlan] = []
        self._tell_at = 1
        self.before = Tally()
        self.tally = Tally()
        self.rows = sum(plan.rows for plan in self._plans.values())
        self.shards = len(self._plans)
        self.shards_done = 0

    @property
    def done(self) -> Tally:
        """What is committed, by this run and those before it."""
        return self.before + self.tally

    @property
    def idle(self) -> bool:
        return self._coordinator.idle and not self._to_assemble

    def take_stock(self) -> None:
        """Finds what earlier runs have done, shard by shard."""
        finished = self._manifest.finished_shards()
        self.shards_done = len(finished)
        self.before = sum(finished.values(), Tally())
        begun = self._begun()
        for name in [name for name in self._plans if name not in finished]:
            done = self._manifest.finished_chunks(name) if name in begun else {}
            self.before += sum(done.values(), Tally())
            if not self._coordinator.add(self._plans[name], done):
                self._to_assemble.append(self._plans[name])

    def take_failed(self, amendment: Amendment) -> None:
        """Finds the rows that failed and haven't been tried again, shard by shard."""
        for name, plan in list(self._plans.items()):
            if tally := amendment.finished(plan):
                self.before += tally
                self.shards_done += 1
                continue
            self._plans[name] = plan = replace(plan, retry=amendment.number)
            sound = [Chunk(name, *kept) for kept in gaps(plan.rows, amendment.failed(plan))]
            done = self._manifest.finished_chunks(name, plan.retry)
            self.before += sum(done.values(), amendment.kept(plan))
            if not self._coordinator.add(plan, [*sound, *done]):
                self._to_assemble.append(plan)

    def work(self, pool: Pool, assembly: Assembly, screen: Screen, first_rows: int = CHUNK_ROWS) -> None:
        """Works until every shard is committed. first_rows: of a chunk, before the workers' pace is known."""
        self._pool, self._assembly, self._screen = pool, assembly, screen
        self._first_rows = first_rows
        while not (self.idle and assembly.idle):
            self._check()
            for event in pool.events(timeout=0.2):
                self._to_assemble += self._take(event)
            self._hand_out()
            self._assemble()
            screen.show(self, pool.pulse(), len(pool.ready))

    def _begun(self) -> set[str]:
        """The shards that have chunks in the work folder."""
        folder = f"{WORK}/chunks"
        return {
            str(PurePosixPath(name).parent.relative_to(folder)) for name in self._manifest.output.list(folder)
        }

    def _take(self, event: Event) -> list[ShardPlan]:
        """Tells the coordinator what happened; returns the shards that are complete by it."""
        if isinstance(event, Note):
            self._screen.say(event.text)
            return []
        if isinstance(event, Lost):
            return self._bury(event)
        self.tally += event.tally
        self._tell_failures()
        self._judge(event)
        complete = self._coordinator.complete(event.worker, event.assignment)
        # A shard that was one chunk has been committed as it is.
        parts = [plan for plan in complete if plan.whole not in event.assignment.chunks]
        self.shards_done += len(complete) - len(parts)
        return parts

    def _bury(self, death: Lost) -> list[ShardPlan]:
        chunks = [chunk for a in self._coordinator.held(death.worker) for chunk in a.chunks]
        committed = self._committed(chunks)
        self.tally += sum(committed.values(), Tally())
        self._screen.say(f"{death.worker} is gone and will be replaced: {death.reason.splitlines()[0]}")
        return self._coordinator.lost(death.worker, death.blame, committed, death.memory)

    def _committed(self, chunks: Iterable[Chunk]) -> dict[Chunk, Tally]:
        """Those that were committed although nobody could say so any more."""
        found: dict[Chunk, Tally] = {}
        for chunk in chunks:
            plan = self._plans[chunk.shard]
            if chunk == plan.whole:
                tally = self._answered(plan)
            else:
                tally = self._manifest.finished_chunks(chunk.shard, plan.retry).get(chunk)
            if tally:
                found[chunk] = tally
        return found

    def _answered(self, plan: ShardPlan) -> Tally | None:
        try:
            return footer_of(self._manifest.output, response_name(plan.shard)).tally
        except FileNotFoundError:
            return None

    def _tell_failures(self) -> None:
        """At the first failed row, and then each time that there are ten times as many."""
        failed, rows = self.tally.failed, self.tally.rows
        if failed < self._tell_at:
            return
        while self._tell_at <= failed:
            self._tell_at *= TELL_AGAIN
        share = f"all {rows:,} rows" if failed == rows else f"{failed:,} of {rows:,} rows"
        self._screen.say(f"{share} so far failed:")
        for line in self.tally.errors.lines():
            self._screen.say(f"  {line}")

    def _judge(self, last: Done) -> None:
        """Gives a job up in which nearly every row fails."""
        done = self.done
        if done.rows < JUDGED_ROWS or not last.tally.failed or done.failed <= self._most_failures * done.rows:
            return
        name = self._file_name(last.assignment.chunks[0])
        code, reason = last.tally.errors.codes[0][0], last.tally.errors.reasons[0]
        raise TooManyFailures(
            f"{done.failed:,} of {done.rows:,} rows failed, of the last {last.tally.rows} most with {code}: "
            f"{reason}; see {self._manifest.output.url}/{name}. What is committed stays; to go on all the "
            "same, set retry.max_failures to 1"
        )

    def _file_name(self, chunk: Chunk) -> str:
        plan = self._plans[chunk.shard]
        return response_name(plan.shard) if chunk == plan.whole else chunk_name(chunk, plan.retry)

    def _hand_out(self) -> None:
        ready = self._pool.ready
        self._coordinator.workers = max(1, len(ready))
        self._coordinator.chunk_rows = self._rows_a_minute()
        # In turns, so that the last rows are spread over all workers.
        while ready:
            ready = [worker for worker in ready if self._give(worker)]

    def _rows_a_minute(self) -> int:
        """A worker's, but no less than it decodes at once, so that two assignments keep its batch full."""
        pace = self._screen.rows_per_second
        if not pace:
            return self._first_rows
        return int(max(60 * pace, self._pool.pulse().running) / self._coordinator.workers)

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
        self.shards_done += len(self._assembly.done())
