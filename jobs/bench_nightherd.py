"""nightherd in the benchmark: rows through its own schema, prompts, engine and answers, without Ray."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
from bench_tasks import Result, Task

from pipeline.answers import Answers
from pipeline.config import EngineConfig
from pipeline.engine.embedder import Embedder
from pipeline.engine.engine import Counters, Engine
from pipeline.engine.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.llama_embedding import LlamaEmbeddingModel
from pipeline.engine.runner import Runner
from pipeline.engine.settings import fit
from pipeline.responders import EmbeddingResponder, GenerativeResponder, Responder
from pipeline.rows import Row
from pipeline.schema import parse_request

_NAMES = frozenset({"local"})
_MEMORY = 16 << 30


class Nightherd:
    """A worker's responder, warm, with a model in memory."""

    def __init__(
        self, model: Path, *, slots: int, threads: int, context: int, embeds: bool, reproducible: bool
    ) -> None:
        file = LlamaFile(model)
        self._engine: Engine | None = None
        # The tokens that each row of the last run got.
        self.out: list[int] = []
        self._responder: Responder
        config = EngineConfig(slots=slots, context=context, reproducible=reproducible)
        if embeds:
            embedder = Embedder(LlamaEmbeddingModel(file, EngineConfig(), threads=threads))
            answers = Answers("local", "bench", pa.schema([]), "embed")
            self._responder = EmbeddingResponder(embedder, answers, names=_NAMES, truncate=False)
            return
        settings = fit(config, file.traits, threads=threads, on_gpu=False, memory=_MEMORY)
        generative = LlamaGenerativeModel(file, settings)
        self._engine = Engine(generative, slots=settings.slots, step_tokens=settings.ubatch)
        self._responder = GenerativeResponder(
            Runner(self._engine),
            generative.vocabulary,
            Answers("local", "bench", pa.schema([])),
            names=_NAMES,
            context=settings.context,
            seconds=600,
        )

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
            sum(usage["completion_tokens"] for usage in usages),
            self._outside(seconds),
        )

    def close(self) -> None:
        self._responder.close()

    def _outside(self, seconds: float) -> float | None:
        return 1 - self._engine.counters.decode_seconds / seconds if self._engine else None
