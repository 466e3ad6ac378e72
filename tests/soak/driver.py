"""One driver of a simulated job, from its start to its end or its death."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa

from pipeline.answer.answers import Answers
from pipeline.errors import JobError, StorageError, WorkersExhausted
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk
from pipeline.job.assignment import Assignment
from pipeline.job.beginning import Commit, begin_whole, reopen
from pipeline.job.run import Run
from pipeline.job.worker import Identity, Worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import Footer
from pipeline.output.manifest import Manifest
from pipeline.output.records import PROGRESS, RESPONSES
from pipeline.plan.corpus import Earlier
from pipeline.pulse import Pulse
from pipeline.tally import Tally
from tests.faults.arithmetic import Sum
from tests.soak.assembly import SimulatedAssembly
from tests.soak.case import Fate, name_of
from tests.soak.cluster import Cluster
from tests.soak.pool import SimulatedPool
from tests.soak.responder import Calculator
from tests.soak.scene import Scene
from tests.soak.world import Process


class Stopped(JobError):
    """Somebody pressed Ctrl-C."""


class Driver:
    """One try of the command "run" or "retry". finished: whether it came to its good end."""

    def __init__(self, scene: Scene, command: str, number: int) -> None:
        self.scene, self.command, self.number = scene, command, number
        self.process = scene.world.process("driver", f"driver-{number}")
        self.finished = False
        self._seconds = scene.world.random.choice([0.001, 0.05, 0.5])
        self.prompts = dict(scene.case.prompts)
        self._cluster: Cluster | None = None

    def play(self) -> None:
        """Starts, and waits until it has ended one way or the other. Raises what should have no way out."""
        world = self.scene.world
        world.note(self.command, self.process.name)
        actor = world.start(self.process, self.process.name, self._drive)
        while not actor.done:
            world.sleep(0.5)
        if isinstance(actor.error, StorageError | WorkersExhausted | Stopped):
            world.note("ended", repr(actor.error))
        elif actor.error:
            raise actor.error
        world.kill(self.process)
        if self._cluster:
            self._cluster.close()

    def _drive(self) -> None:
        scene, case = self.scene, self.scene.case
        earlier, corpus = case.corpus(self.command == "retry")
        manifest = self._manifest = ObservedManifest(self, case.fingerprint(corpus, earlier), earlier)
        run = Run(case.job.retry, corpus.plans, manifest, self._check)
        manifest.opening = True
        commit = (begin_whole if self.command == "run" else reopen)(manifest, run)
        manifest.opening = False
        if commit:
            if not run.idle:
                self._work(run, commit)
            if (run.done.rows, run.shards_done) != (run.rows, run.shards):
                scene.world.broken(
                    f"at the end of {run.rows} rows in {run.shards} shards, "
                    f"{run.done} and {run.shards_done} are done"
                )
            manifest.finish(corpus.plans)
        manifest.finished_shards()
        self.finished = True

    def _work(self, run: Run, commit: Commit) -> None:
        scene, phase, prefix = self.scene, self.process.phase, f"{self.number}"
        self._cluster = Cluster(scene.world, scene.weather)
        pool = SimulatedPool(self._cluster, self._build, phase, prefix, self._is_spared)
        assembly = SimulatedAssembly(self._cluster, commit, phase, prefix)
        first_rows = scene.world.random.choice([4, 16, 64])
        run.work(pool, assembly, Screen(scene, self._manifest), first_rows)

    def _check(self) -> None:
        if self.scene.weather.strikes("stop_driver"):
            raise Stopped("stopped by SIGINT")

    def _build(self, process: Process) -> Worker:
        case, prints = self.scene.case, self._manifest.fingerprint
        digest, manifest = prints.digest, Manifest(Storage.at(case.output), prints)
        answers = Answers("fake", digest, pa.schema([]))
        responder = Calculator(self.scene, process, answers, self._seconds, self.number)
        return Worker(case.job, Identity("fake", digest), manifest, responder)

    def _is_spared(self, assignment: Assignment) -> bool:
        """Whether one more death with blame would condemn a row that does no harm, or end the job."""
        case = self.scene.case
        if assignment.condemned:
            return True
        if not assignment.alone or assignment.weight > 1:
            return False
        chunk = assignment.chunks[0]
        prompts = self.prompts[chunk.shard][chunk.start : chunk.stop]
        poison = any(Fate.of(prompt, self.process.phase).code == "worker_crashed" for prompt in prompts)
        return not poison and assignment.deaths + 1 >= max(1, case.attempts - 1)


class ObservedManifest(Manifest):
    """Tells the witness what a driver knows to be done when it has begun. opening: while it begins."""

    def __init__(self, driver: Driver, prints: Fingerprint, earlier: Earlier) -> None:
        super().__init__(earlier.output, prints, driver.scene.case.about, earlier.seen)
        self._driver, self._prompts = driver, driver.prompts
        self.opening = False

    def begin(self) -> bool:
        finished = super().begin()
        self._driver.process.phase = self.retry
        return finished

    def reopen(self) -> int:
        # Which answers stay is known when the number is.
        self.opening = False
        number = self._driver.process.phase = super().reopen()
        self.opening = True
        for prompts in self._prompts.values():
            self._know(prompt for prompt in prompts if not Fate.of(prompt, number - 1).code)
        return number

    def finished_shards(self) -> dict[str, Tally]:
        found = super().finished_shards()
        for shard in found:
            self._know(self._prompts[shard])
        return found

    def finished_chunks(self, shard: str, retry: int = 0) -> dict[Chunk, Tally]:
        found = super().finished_chunks(shard, retry)
        for chunk in found:
            self._know(self._prompts[shard][chunk.start : chunk.stop])
        return found

    def footer(self, name: str) -> Footer:
        footer = super().footer(name)
        is_known = name.startswith(RESPONSES) and self._is_own_version(footer)
        if is_known and footer.retry == self._driver.process.phase:
            self._know(self._prompts[footer.shard])
        return footer

    def _know(self, prompts: Iterable[str]) -> None:
        if self.opening:
            names = [name_of(Sum.of(prompt).number) for prompt in prompts]
            self._driver.scene.witness.known_done(self._driver.number, names)


class Screen:
    """Shows nothing, but keeps the progress file, as the real one does."""

    def __init__(self, scene: Scene, manifest: Manifest) -> None:
        self._world, self._manifest = scene.world, manifest
        self.rows_per_second = self._world.random.choice([0.0, 0.1, 1.0, 100.0])
        self._next = 0.0

    def say(self, message: str) -> None:
        self._world.note("says", message)

    def show(self, run: Run, pulse: Pulse, workers: int) -> None:
        if self._world.now >= self._next:
            self._next = self._world.now + 10.0
            with suppress(StorageError):
                self._manifest.output.replace(PROGRESS, b"{}")
