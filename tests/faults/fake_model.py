"""Workers that answer by arithmetic, log what they do, and come to harm where a row says so."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import ray

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import WorkerError
from pipeline.files.storage import Storage
from pipeline.job.actors.cluster import Slot
from pipeline.job.worker import Identity, Worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.request.schema import CompletionRequest
from tests.faults.answer_log import AnswerLog
from tests.faults.arithmetic import Sum
from tests.faults.disk import Disk


def _overflow() -> None:
    """The stack, not Python's count of calls."""
    sys.setrecursionlimit(10**9)
    nested: list[Any] = []
    for _ in range(10**6):
        nested = [nested]
    repr(nested)


def _recurse() -> None:
    _recurse()


def _eat() -> None:
    """Takes memory until somebody ends it."""
    eaten = []
    while True:
        eaten.append(b"x" * (64 << 20))
        time.sleep(0.05)


def _break() -> None:
    raise WorkerError("the engine is broken")


ORDERS: dict[str, Callable[[], object]] = {
    "KILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "ABORT": os.abort,
    "SEGFAULT": lambda: ctypes.string_at(0),
    "EXIT": lambda: os._exit(0),
    "LEAVE": sys.exit,
    "OVERFLOW": _overflow,
    "RECURSE": _recurse,
    "BREAK": _break,
    "HANG": lambda: time.sleep(10_000),
    "FREEZE": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "EAT": _eat,
}


class Calculator:
    """A responder. seconds: a row takes, until the test is in a hurry. unfit: whether every row kills."""

    kind: Literal["generate", "embed"] = "generate"

    def __init__(self, answers: Answers, log: AnswerLog, seconds: float, unfit: bool) -> None:
        self._answers, self._log, self._seconds, self._unfit = answers, log, seconds, unfit
        self._lock = threading.Lock()
        self._under_way: dict[int, list[dict[str, Any]]] = {}
        self._pulse = Pulse()

    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        if attempts:
            self._log.write("begun", rows=len(rows), first=rows[0].custom_id if rows else "")
        answers = self._under_way.setdefault(id(rows), [])
        try:
            for row in rows:
                answers.append(self._answer(row, attempts))
        finally:
            del self._under_way[id(rows)]
        return answers

    def answered(self, rows: Sequence[Row]) -> dict[int, dict[str, Any]]:
        return dict(enumerate(list(self._under_way.get(id(rows), []))))

    def pulse(self) -> Pulse:
        return self._pulse

    def close(self) -> None: ...

    def _answer(self, row: Row, attempts: int) -> dict[str, Any]:
        assert isinstance(row.request, CompletionRequest)
        task = Sum.of(str(row.request.prompt))
        if self._unfit:
            ORDERS["SEGFAULT"]()
        self._obey(task)
        if not self._log.hurried:
            time.sleep(self._seconds)
        self._count(task)
        # Rows that only prove a worker are answered a second time on purpose.
        self._log.write("answered" if attempts else "proved", row=row.custom_id)
        tokens = tuple(range(task.completion_tokens))
        generation = Generation(task.text, tokens, "stop", task.prompt_tokens, task.cached_tokens)
        return self._answers.completion(row, [generation], attempts)

    def _obey(self, task: Sum) -> None:
        if task.order and not (task.once and self._done_before(task)):
            self._log.write("obeyed", order=task.order, number=task.number)
            ORDERS[task.order]()

    def _done_before(self, task: Sum) -> bool:
        try:
            Path(f"{self._log.path}.{task.number}").touch(exist_ok=False)
        except FileExistsError:
            return True
        return False

    def _count(self, task: Sum) -> None:
        with self._lock:
            before = self._pulse
            self._pulse = Pulse(
                prompt_tokens=before.prompt_tokens + task.prompt_tokens,
                completion_tokens=before.completion_tokens + task.completion_tokens,
                rows=before.rows + 1,
            )


@dataclass
class CalculatorWorkers:
    """Builds the workers of a job, each in its actor's process."""

    job: JobConfig
    fingerprint: Fingerprint
    log: AnswerLog
    seconds: float
    disk: Disk
    unfit: tuple[str, ...] = ()

    def __call__(self, slot: Slot) -> Worker:
        self.disk.install(self.job.output.path, self.log)
        node = ray.get_runtime_context().get_node_id()
        self.log.write("born", node=node)
        unfit = bool({node, "all"} & set(self.unfit))
        identity = Identity("fake", self.fingerprint.digest)
        answers = Answers("fake", self.fingerprint.digest, pa.schema([]))
        manifest = Manifest(Storage.at(self.job.output.path), self.fingerprint)
        return Worker(self.job, identity, manifest, Calculator(answers, self.log, self.seconds, unfit))
