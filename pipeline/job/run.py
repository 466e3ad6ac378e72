"""The loop of one run: hand out rows, take in what is done, put shards together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

from pipeline.config import RetryConfig
from pipeline.errors import TooManyFailures, WorkersExhausted
from pipeline.input.shards import CHUNK_ROWS, Chunk, ShardPlan
from pipeline.job.actors.pool import Assembly, Done, Event, Lost, Note, Pool, Unfit
from pipeline.job.backlog import gaps, left_of_all
from pipeline.job.coordinator import Coordinator
from pipeline.job.limits import Reached, never
from pipeline.output.amendment import Amendment
from pipeline.output.drafts import Drafts
from pipeline.output.manifest import Manifest
from pipeline.output.records import CHUNKS, response_name
from pipeline.plan.corpus import looked_into
from pipeline.plan.try_out import Part
from pipeline.pulse import Pulse
from pipeline.tally import Tally

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
    is_part: whether rows are left out, so that the job isn't finished by it.
    ended: the limit that ended it, in words.
    deaths: of workers at work, by what they died of: "rows", "memory" or "machine".
    """

    def __init__(
        self,
        retry: RetryConfig,
        plans: Iterable[ShardPlan],
        manifest: Manifest,
        check: Callable[[], None] = lambda: None,
        reached: Reached = never,
    ) -> None:
        """check: called in each turn of the loop; what it raises ends the run.
        reached: the limit that ends the run, in words; see `Limits.reached`."""
        self._manifest, self._check, self._reached = manifest, check, reached
        self._drafts = Drafts(manifest)
        self._plans = {plan.shard.name: plan for plan in plans}
        self._coordinator = Coordinator(retry.max_attempts)
        self._most_failures = retry.max_failures
        self._to_assemble: list[ShardPlan] = []
        self._in_part: set[str] = set()
        self._tell_at = 1
        self.before = Tally()
        self.tally = Tally()
        self.rows = sum(plan.rows for plan in self._plans.values())
        self.shards = len(self._plans)
        self.shards_done = 0
        self.is_part = False
        self.ended: str | None = None
        self.deaths: Counter[str] = Counter()

    @property
    def done(self) -> Tally:
        """What is committed, by this run and those before it."""
        return self.before + self.tally

    @property
    def idle(self) -> bool:
        return self._coordinator.idle and not self._to_assemble

    def take_stock(self, part: Part | None = None) -> None:
        """Finds what earlier runs have done, shard by shard. part: the rows to answer; None for all."""
        finished = self._manifest.finished_shards()
        self.shards_done = len(finished)
        self.before = sum(finished.values(), Tally())
        self._note_answered(finished)
        begun = self._begun()
        for name in [name for name in self._plans if name not in finished]:
            self._take_up(name, begun, part)
        self.is_part = part is not None
        if self.is_part:
            self.rows = self.before.rows + self._coordinator.backlog.unassigned

    def _take_up(self, name: str, begun: set[str], part: Part | None = None) -> None:
        """Goes on with a shard that isn't committed. begun: the names of those that have chunks."""
        plan = self._plans[name] = looked_into(self._plans[name])
        done = self._done_of(plan) if name in begun else {}
        self.before += sum(done.values(), Tally())
        for chunk, tally in done.items():
            self._coordinator.note_answered((chunk,), tally)
        self._take_on(plan, done, part)

    def _take_on(self, plan: ShardPlan, done: Iterable[Chunk], part: Part | None) -> None:
        """Gives the coordinator what is left of a shard. One that stays in part is not put together."""
        name = plan.shard.name
        if part is not None:
            if name not in part:
                return
            asked = list(left_of_all(part[name], done))
            if sum(chunk.rows for chunk in [*done, *asked]) < plan.rows:
                self._in_part.add(name)
            done = [Chunk(name, *outside) for outside in gaps(plan.rows, asked)]
        if not self._coordinator.add(plan, done):
            self._to_assemble += self._whole([plan])

    def take_failed(self, amendment: Amendment) -> None:
        """Finds the rows that failed and haven't been tried again, and shards that are new."""
        begun = self._begun()
        for name, plan in list(self._plans.items()):
            known = self._manifest.answered(plan)
            if known is None:
                self._take_up(name, begun)
                continue
            # What was kept of a file that has changed or gone can't be tried again.
            if tally := known if plan.recorded else amendment.finished(plan):
                self.before += tally
                self.shards_done += 1
                continue
            self._plans[name] = plan = replace(plan, retry=amendment.number)
            sound = [Chunk(name, *kept) for kept in gaps(plan.rows, amendment.failed(plan))]
            done = self._done_of(plan)
            kept = amendment.kept(plan)
            self.before += sum(done.values(), kept)
            self._coordinator.note_answered(tuple(sound), kept)
            if not self._coordinator.add(plan, [*sound, *done]):
                self._to_assemble.append(plan)

    def work(self, pool: Pool, assembly: Assembly, screen: Screen, first_rows: int = CHUNK_ROWS) -> None:
        """Works until every shard is committed, or a limit is reached.

        first_rows: of a chunk, before the workers' pace is known."""
        self._pool, self._assembly, self._screen = pool, assembly, screen
        self._first_rows = first_rows
        self._avoided: set[str] = set()
        pulse = pool.pulse()
        while not (self.idle and assembly.idle):
            self._check()
            self.ended = self._reached(self.tally, pulse)
            if self.ended:
                screen.say(self.ended)
                pool.end()
                self._gather()
                screen.show(self, pulse, len(pool.ready))
                return
            for event in pool.events(timeout=0.2):
                self._to_assemble += self._whole(self._take(event))
            pulse = pool.pulse()
            self._hand_out(pulse)
            self._assemble()
            screen.show(self, pulse, len(pool.ready))

    def _gather(self) -> None:
        """Counts in the answers to chunks that their workers had to leave."""
        held = [assignment for assignment in self._coordinator.under_way if not assignment.control]
        self.tally += sum(self._committed(chunk for a in held for chunk in a.chunks).values(), Tally())

    def _note_answered(self, finished: Mapping[str, Tally]) -> None:
        """Rows that earlier runs have answered: new workers can be tried on them."""
        for name, tally in finished.items():
            if (plan := self._plans.get(name)) and not plan.recorded:
                self._coordinator.note_answered((Chunk(name, 0, plan.rows),), tally)

    def _begun(self) -> set[str]:
        """The shards that have chunks in the work folder."""
        folders = {str(PurePosixPath(name).parent) for name in self._manifest.output.list(CHUNKS)}
        return {name for name in self._plans if self._manifest.chunk_folder(name) in folders}

    def _take(self, event: Event) -> list[ShardPlan]:
        """Tells the coordinator what happened; returns the shards that are complete by it."""
        if isinstance(event, Note):
            self._screen.say(event.text)
            return []
        if isinstance(event, Lost):
            return self._bury(event)
        if isinstance(event, Unfit):
            self._coordinator.bar(event.machine)
            self._avoid(event.reason)
            return []
        complete = self._coordinator.complete(event.worker, event.assignment, event.tally)
        if event.assignment.control:
            return []
        self.tally += event.tally
        self._tell_failures()
        self._judge(event)
        # A shard that was one chunk has been committed as it is.
        parts = [plan for plan in complete if plan.whole not in event.assignment.chunks]
        self.shards_done += len(complete) - len(parts)
        return parts

    def _whole(self, plans: Iterable[ShardPlan]) -> list[ShardPlan]:
        """Those of which every row is asked for."""
        return [plan for plan in plans if plan.shard.name not in self._in_part]

    def _bury(self, death: Lost) -> list[ShardPlan]:
        held = [a for a in self._coordinator.held(death.worker) if not a.control]
        chunks = [chunk for assignment in held for chunk in assignment.chunks]
        committed = self._committed(chunks)
        self.tally += sum(committed.values(), Tally())
        self.deaths["memory" if death.memory else "rows" if death.blame else "machine"] += 1
        self._screen.say(f"{death.worker} is gone and will be replaced: {first_line(death.reason)}")
        complete = self._coordinator.lost(death.worker, death.blame, committed, death.memory)
        self._avoid(
            "new workers died there one after the other, each at the first row that it was given; no row is "
            f"blamed for it: {first_line(death.reason)}"
        )
        return complete

    def _avoid(self, reason: str) -> None:
        """Keeps workers off the machines that were barred. Raises WorkersExhausted where no other is left."""
        usable, barred = self._pool.machines, self._coordinator.barred
        for machine in barred - self._avoided:
            self._avoided |= {machine}
            self._pool.avoid(machine)
            self._screen.say(f"{usable.get(machine, machine)} is not used any more: {first_line(reason)}")
        if barred and usable and not usable.keys() - barred:
            rows = self.done.succeeded
            answered = f"{rows:,} rows are answered" if rows else "No row has been answered"
            raise WorkersExhausted(
                f"no machine is left that can answer rows ({', '.join(sorted(usable.values()))}): {reason}\n"
                f"{answered}, and what is committed stays. `nightherd doctor` says what is wrong with a "
                "machine; the same command resumes the job"
            )

    def _committed(self, chunks: Iterable[Chunk]) -> dict[Chunk, Tally]:
        """What of them was committed although nobody could say so any more, and what drafts held of them."""
        found: dict[Chunk, Tally] = {}
        for chunk in chunks:
            plan = self._plans[chunk.shard]
            if chunk == plan.whole and (tally := self._manifest.answered(plan)):
                found[chunk] = tally
                continue
            self._drafts.commit(chunk, plan.retry)
            done = self._manifest.finished_chunks(chunk.shard, plan.retry)
            found |= {part: tally for part, tally in done.items() if part.within(chunk)}
        return found

    def _done_of(self, plan: ShardPlan) -> dict[Chunk, Tally]:
        """The committed chunks of a shard that isn't complete, and what an earlier run left as drafts."""
        self._drafts.commit_all(plan.shard.name, plan.retry)
        return self._manifest.finished_chunks(plan.shard.name, plan.retry)

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
        return (
            response_name(plan.shard) if chunk == plan.whole else self._manifest.chunk_name(chunk, plan.retry)
        )

    def _hand_out(self, pulse: Pulse) -> None:
        ready = self._pool.ready
        self._coordinator.backlog.workers = max(1, len(ready))
        self._coordinator.backlog.chunk_rows = self._rows_a_minute(pulse)
        self._coordinator.machines = set(ready.values())
        self._coordinator.kernels.update(self._pool.kernels)
        # In turns, so that the last rows are spread over all workers.
        while ready:
            ready = {worker: machine for worker, machine in ready.items() if self._give(worker, machine)}

    def _rows_a_minute(self, pulse: Pulse) -> int:
        """A worker's, but no less than it decodes at once, so that two assignments keep its batch full."""
        pace = self._screen.rows_per_second
        if not pace:
            return self._first_rows
        return int(max(60 * pace, pulse.running) / self._coordinator.backlog.workers)

    def _give(self, worker: str, machine: str) -> bool:
        assignment = self._coordinator.assign(worker, machine)
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


def first_line(reason: str) -> str:
    return reason.splitlines()[0] if reason else "without a word"
