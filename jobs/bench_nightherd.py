"""nightherd in the benchmark: rows through a worker's schema, prompts, engine and answers, without Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bench_schemas import agreement
from bench_tasks import Result, Task

from pipeline.config import make_job
from pipeline.engine.counters import Counters
from pipeline.engine.runner import Runner
from pipeline.job.build import build_worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request

_NOWHERE = {"input.path": "unread", "output.path": "memory://unwritten", "retry.row_deadline": 3600}


class Nightherd:
    """A worker's responder, warm, with a model in memory."""

    def __init__(self, settings: Mapping[str, Any], *, threads: int) -> None:
        """settings: a job's, by their dotted names; model.path is one of them."""
        job = make_job({}, (_NOWHERE | dict(settings)).items(), "benchmark")
        # A worker reads and commits shards; the benchmark hands its rows to what is inside.
        self._responder = build_worker(job, Fingerprint({}), threads=threads, gpus=0)._responder
        # An embedding model has no engine.
        runner: Runner | None = getattr(self._responder, "_runner", None)
        self._engine = runner.engine if runner else None
        # The tokens that each row of the last run got.
        self.out: list[int] = []

    def run(self, task: Task) -> Result:
        """All of the task's rows, from their bodies to their answers."""
        if self._engine:
            self._engine.counters = Counters()
        began = time.perf_counter()
        rows = [Row(str(i), parse_request(task.url, body)) for i, body in enumerate(task.bodies)]
        answers = self._responder.respond(rows, 1)
        seconds = time.perf_counter() - began
        refused = next((answer["error"] for answer in answers if answer.get("error")), None)
        if refused:
            raise SystemExit(f"a row of {task.name} was refused: {refused}")
        usages = [answer["usage"] for answer in answers]
        self.out = [usage["completion_tokens"] for usage in usages]
        return Result(
            seconds,
            len(rows),
            sum(usage["prompt_tokens"] for usage in usages),
            sum(self.out),
            self._outside(seconds),
            agreement(task.bodies[0], [answer.get("text") or "" for answer in answers]),
        )

    def close(self) -> None:
        self._responder.close()

    def _outside(self, seconds: float) -> float | None:
        return 1 - self._engine.counters.decode_seconds / seconds if self._engine else None
