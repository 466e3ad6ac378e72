"""The commits of a small job, step by step, in processes that are killed or stopped between two steps."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, Shard, ShardPlan
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.records import response_name
from pipeline.request.rows import Row
from pipeline.request.schema import CompletionRequest
from pipeline.tally import Tally
from tests.faults.disk import on_change

ROWS = 4


def plan_of(name: str, rows: int = ROWS) -> ShardPlan:
    return ShardPlan(Shard(name, f"/nowhere/{name}", 1, ""), rows, "0", ("prompt",))


LARGE, SMALL = plan_of("large.parquet"), plan_of("small.parquet")
HALVES = (Chunk("large.parquet", 0, ROWS // 2), Chunk("large.parquet", ROWS // 2, ROWS))


def manifest_of(output: Path, plans: Sequence[ShardPlan] = (LARGE, SMALL)) -> Manifest:
    job = JobConfig.model_validate(
        {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": str(output)}}
    )
    return Manifest(Storage.at(str(output)), Fingerprint.of(job, "0" * 64, plans))


def answers_of(chunk: Chunk, author: str = "") -> tuple[pa.Table, Tally]:
    """A chunk's rows. author: who says to have answered them."""
    answers = Answers("fake", "f", pa.schema([]))
    rows = [Row(f"{chunk.shard}-{i}", CompletionRequest(prompt="?")) for i in range(chunk.start, chunk.stop)]
    generation = Generation(author, (1,), "stop", 1, 0)
    table = answers.table([answers.completion(row, [generation], 1) for row in rows], pa.table({}))
    return table, Tally(chunk.rows, chunk.rows, 0, chunk.rows, chunk.rows, 0, chunk.rows)


def whole_of(plan: ShardPlan) -> Chunk:
    return Chunk(plan.shard.name, 0, plan.rows)


def work(output: Path, log: Path) -> None:
    """What is left of the job, one commit after the other; the names of what it computed go to `log`."""
    manifest = manifest_of(output)
    if manifest.begin():
        return
    finished = manifest.finished_shards()
    if LARGE.shard.name not in finished:
        done = manifest.finished_chunks(LARGE.shard.name)
        for chunk in HALVES:
            if chunk not in done:
                _note(log, f"{chunk.shard} {chunk.start}")
                manifest.commit_chunk(chunk, *answers_of(chunk))
        manifest.commit_shard(LARGE)
    if SMALL.shard.name not in finished:
        _note(log, SMALL.shard.name)
        manifest.commit_whole(SMALL, *answers_of(whole_of(SMALL)))
    manifest.finish([LARGE, SMALL])


def committed(output: Path) -> set[str]:
    """What the job need not compute again, as `work` names it."""
    halves = {f"{c.shard} {c.start}" for c in HALVES}
    chunks = {f"{c.shard} {c.start}" for c in HALVES if (output / manifest_of(output).chunk_name(c)).exists()}
    if (output / response_name(LARGE.shard)).exists():
        chunks |= halves
    small = {SMALL.shard.name} if (output / response_name(SMALL.shard)).exists() else set()
    return chunks | small


def _note(log: Path, name: str) -> None:
    with log.open("a") as file:
        file.write(f"{name}\n")


@dataclass
class AtStep:
    """Sends a signal to its own process before the `step`th change to a folder, and notes all changes."""

    folder: Path
    step: int
    signal: int
    log: Path | None = None

    def install(self) -> None:
        self._changes: list[str] = []
        on_change(str(self.folder), self._act)

    def _act(self, change: str) -> None:
        self._changes.append(change)
        if self.log:
            self.log.write_text(json.dumps(self._changes))
        if len(self._changes) == self.step:
            os.kill(os.getpid(), self.signal)


def work_until(output: Path, log: Path, step: int, changes: Path | None = None) -> None:
    """`work`, in a process that is killed before the `step`th change."""
    AtStep(output, step, signal.SIGKILL, changes).install()
    work(output, log)


def commit_after_stop(output: Path, commit: str, author: str, step: int, result: Path) -> None:
    """A zombie: one commit, in a process that stops before the `step`th change."""
    AtStep(output, step, signal.SIGSTOP).install()
    result.write_text(json.dumps(COMMITS[commit](manifest_of(output), author)))


def _chunk(manifest: Manifest, author: str) -> Any:
    return manifest.commit_chunk(HALVES[0], *answers_of(HALVES[0], author))


def _whole(manifest: Manifest, author: str) -> Any:
    return manifest.commit_whole(SMALL, *answers_of(whole_of(SMALL), author)).to_dict()


def _shard(manifest: Manifest, author: str) -> Any:
    return manifest.commit_shard(LARGE).to_dict()


COMMITS: dict[str, Callable[[Manifest, str], Any]] = {"chunk": _chunk, "whole": _whole, "shard": _shard}


def racer(output: Path, author: str, rounds: int, barrier: Any, results: Any) -> None:
    """In each round, commits a chunk, a shard of one and a shard of two, at the same moment as others."""
    manifest = manifest_of_race(output, rounds)
    for number in range(rounds):
        chunk, single, double = race_of(number)
        whole, halves = whole_of(single), [Chunk(double.shard.name, i * 2, i * 2 + 2) for i in range(2)]
        mine, every = answers_of(chunk, author), [(half, answers_of(half)) for half in halves]
        table, tally = answers_of(whole, author)
        for half, (rows, cost) in every:
            manifest.commit_chunk(half, rows, cost)
        barrier.wait()
        won = manifest.commit_chunk(chunk, *mine)
        barrier.wait()
        said = manifest.commit_whole(single, table, tally)
        barrier.wait()
        joined = manifest.commit_shard(double)
        results.put((number, author, won, said.to_dict(), joined.to_dict()))


def manifest_of_race(output: Path, rounds: int) -> Manifest:
    raced = plan_of("raced.parquet", rounds * ROWS)
    return manifest_of(output, [raced, *(plan for n in range(rounds) for plan in race_of(n)[1:])])


def race_of(number: int) -> tuple[Chunk, ShardPlan, ShardPlan]:
    """What a round is about: a chunk, a shard that is one chunk, a shard of two."""
    return (
        Chunk("raced.parquet", number * ROWS, (number + 1) * ROWS),
        plan_of(f"single-{number}.parquet"),
        plan_of(f"double-{number}.parquet"),
    )


def processes() -> ForkServerContext:
    """Processes that are forked from one in which no thread has run, and which has imported all this."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.commits", "tests.faults.downloads"])
    return context


def started(target: Callable[..., None], *args: Any) -> BaseProcess:
    process = processes().Process(target=target, args=args)
    process.start()
    # One that has been stopped can't be joined, nor told to end.
    atexit.register(process.kill)
    return process


def ended(target: Callable[..., None], *args: Any) -> int | None:
    """The exit status of a process that ran `target`."""
    process = started(target, *args)
    process.join(60)
    return process.exitcode
