"""Embedding requests become vectors, the inputs of many requests packed into each call."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.answer.answer import Answer, Embedded, Usage
from pipeline.engine.embedder import Embedder, shorten
from pipeline.engine.model import Vocabulary
from pipeline.engine.model_thread import ModelThread
from pipeline.engine.priority import Priority
from pipeline.errors import RowError, WorkerError
from pipeline.pulse import Pulse
from pipeline.request.schema import ChatRequest, EmbeddingRequest, Request
from pipeline.respond.about import About
from pipeline.respond.handle import Handle
from pipeline.respond.preparation import EmbeddingPreparation
from pipeline.respond.service import Listen


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """One request's inputs as tokens, and its answer to come."""

    request: EmbeddingRequest
    inputs: list[list[int]]
    result: Future[Answer] = field(default_factory=Future)

    def settle(self, vectors: NDArray[np.float32]) -> None:
        tokens = sum(map(len, self.inputs))
        self.result.set_result(Embedded(shorten(vectors, self.request.dimensions), Usage(tokens)))


class EmbeddingService:
    """Answers to one model's embedding requests. Those that come while a call is made share the next one."""

    kind: Literal["generate", "embed"] = "embed"

    def __init__(
        self,
        embedder: Embedder,
        about: About = About(),  # noqa: B008, it is frozen
        *,
        truncate: bool,
        reuse: bool = True,
        thread: ModelThread | None = None,
    ) -> None:
        """truncate: cut over-long inputs instead of refusing them. reuse: of equal inputs, embed one.
        thread: where the embedder's model was loaded; a new one for models that don't care."""
        self.about = about
        self._embedder = embedder
        model = embedder.model
        self._preparation = EmbeddingPreparation(
            model.vocabulary,
            about.names,
            context=model.context,
            dimensions=model.dimensions,
            truncate=truncate,
        )
        self._reuse = reuse
        self._thread = thread or ModelThread()
        self._singles: deque[Texts] = deque()
        self._chunks: deque[Sequence[Texts]] = deque()
        self._pulse = Pulse()
        self.failure: WorkerError | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        return self._embedder.model.vocabulary

    @property
    def context(self) -> int:
        return self._embedder.model.context

    def ask(
        self,
        request: Request,
        name: str,
        *,
        listen: Listen | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Handle[Answer]:
        """As `Service`. Vectors come at once: nothing is told to `listen`."""
        texts = self.prepare(request)
        if priority is Priority.BATCH:
            self.begin([texts])
        else:
            self._singles.append(texts)
            self._wake()
        return Handle(texts.result)

    def prepare(self, request: Request | RowError) -> Texts:
        """Raises RowError where the request can't be served."""
        return Texts(*self._preparation.prepare(request))

    def prompt(self, request: ChatRequest) -> tuple[str, list[int]]:
        """As `Service`."""
        raise RowError("invalid_request", "the model gives embeddings only: it has no chats")

    def begin(self, chunk: Sequence[Texts]) -> None:
        """Begins to embed a job's requests, in calls of their own."""
        self._chunks.append(chunk)
        self._wake()

    def pulse(self) -> Pulse:
        return replace(self._pulse, waiting=len(self._singles), interactive=len(self._singles))

    def close(self) -> None:
        self._thread.close()

    def _wake(self) -> None:
        if self.failure:
            raise WorkerError(str(self.failure)) from self.failure
        try:
            self._thread.submit(self._serve)
        except RuntimeError as closed:
            raise WorkerError("the engine stopped: closed") from closed

    def _serve(self) -> None:
        """Embeds what waits, interactive requests first."""
        taken = [self._singles.popleft() for _ in range(len(self._singles))]
        if not taken and self._chunks:
            taken = list(self._chunks.popleft())
        wanted = [texts for texts in taken if texts.result.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            vectors = self._embed([tokens for texts in wanted for tokens in texts.inputs], len(wanted))
        except BaseException as failure:
            # As with generations: whatever it was, the model can't be trusted any more.
            self.failure = _broken(failure)
            for texts in wanted:
                texts.result.set_exception(self.failure)
            return
        at = 0
        for texts in wanted:
            texts.settle(vectors[at : at + len(texts.inputs)])
            at += len(texts.inputs)

    def _embed(self, inputs: list[list[int]], requests: int) -> NDArray[np.float32]:
        before = self._pulse
        self._pulse = replace(before, running=requests)
        vectors = self._embed_once(inputs) if self._reuse else self._embedder.embed(inputs)
        tokens = before.prompt_tokens + sum(map(len, inputs))
        self._pulse = Pulse(prompt_tokens=tokens, rows=before.rows + requests)
        return vectors

    def _embed_once(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        places: dict[tuple[int, ...], int] = {}
        order = [places.setdefault(tuple(tokens), len(places)) for tokens in inputs]
        vectors: NDArray[np.float32] = self._embedder.embed(list(places))[order]
        return vectors


def _broken(failure: BaseException) -> WorkerError:
    if isinstance(failure, WorkerError):
        return failure
    error = WorkerError(f"the engine stopped: {failure}")
    error.__cause__ = failure
    return error
