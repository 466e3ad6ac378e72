"""From requests to answers: rows of a chunk through a generative or an embedding model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.answers import Answers, Embeddings
from pipeline.engine.embedder import Embedder, fit, shorten
from pipeline.engine.model import Vocabulary
from pipeline.engine.runner import NewSequence, Runner
from pipeline.engine.sampling import SamplingParams
from pipeline.engine.sequence import Outcome
from pipeline.engine.sequence import Sequence as Generating
from pipeline.engine.text import TextStream
from pipeline.errors import RowError
from pipeline.prompts import PromptBuilder, embedding_inputs
from pipeline.rows import Row
from pipeline.schema import ChatRequest, CompletionRequest, EmbeddingRequest, GenerationFields, Request

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pulse:
    """A worker's life signs. Tokens and rows since its start; running and waiting rows now."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rows: int = 0
    running: int = 0
    waiting: int = 0


class Responder(Protocol):
    """Answers rows. `respond` may be called from several threads at once."""

    kind: Literal["generate", "embed"]

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        """One record for each row, in order. Raises WorkerError where the model broke."""

    def pulse(self) -> Pulse: ...
    def close(self) -> None: ...


class GenerativeResponder:
    """Chats and completions by continuous batching."""

    kind: Literal["generate", "embed"] = "generate"

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        answers: Answers,
        *,
        names: frozenset[str],
        context: int,
        seconds: float,
    ) -> None:
        """names: the model's names in requests. context: tokens. seconds: a row's deadline."""
        self._runner = runner
        self._vocabulary = vocabulary
        self._prompts = PromptBuilder(vocabulary, context)
        self._answers = answers
        self._names = names
        self._seconds = seconds

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        prepared = [self._prepare(row) for row in rows]
        ready = [
            (row, work) for row, work in zip(rows, prepared, strict=True) if not isinstance(work, RowError)
        ]
        outcomes = iter(self._runner.run([self._sequence(row, prompt) for row, prompt in ready]))
        results = [work if isinstance(work, RowError) else next(outcomes) for work in prepared]
        return [self._record(row, result, attempts) for row, result in zip(rows, results, strict=True)]

    def pulse(self) -> Pulse:
        engine = self._runner.engine
        done = engine.counters
        return Pulse(
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            cached_tokens=done.cached_tokens,
            rows=done.rows,
            running=engine.running,
            waiting=engine.waiting,
        )

    def close(self) -> None:
        self._runner.close()

    def _prepare(self, row: Row) -> list[int] | RowError:
        try:
            request = _served(row.request, self._names)
            if isinstance(request, EmbeddingRequest):
                raise RowError(
                    "invalid_request",
                    "the model generates text and gives no embeddings: use an embedding model",
                )
            return self._prompts.build(request)
        except RowError as error:
            return error

    def _sequence(self, row: Row, prompt: list[int]) -> NewSequence:
        request = row.request
        assert isinstance(request, ChatRequest | CompletionRequest)

        def new(on_finish: Callable[[Outcome], None]) -> Generating:
            return Generating(
                prompt=prompt,
                max_tokens=request.max_tokens,
                params=_params(request, row.custom_id),
                stream=TextStream(self._vocabulary.piece, tuple(request.stop)),
                on_finish=on_finish,
                seconds=self._seconds,
            )

        return new

    def _record(self, row: Row, result: Outcome, attempts: int) -> Record:
        if isinstance(result, RowError):
            return self._answers.error(row.custom_id, result, attempts)
        if isinstance(row.request, ChatRequest):
            return self._answers.chat(row, result, attempts)
        return self._answers.completion(row, result, attempts)


class EmbeddingResponder:
    """Embeddings, the inputs of many rows packed into each call."""

    kind: Literal["generate", "embed"] = "embed"

    def __init__(
        self, embedder: Embedder, answers: Answers, *, names: frozenset[str], truncate: bool
    ) -> None:
        """truncate: cut over-long inputs instead of refusing them."""
        self._embedder = embedder
        self._answers = answers
        self._names = names
        self._truncate = truncate
        # One thread for all calls: OpenMP would start threads of its own for each that comes along.
        self._thread = ThreadPoolExecutor(1, "embedder")
        self._pulse = Pulse()

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        prepared = [self._prepare(row) for row in rows]
        inputs = [tokens for work in prepared if not isinstance(work, RowError) for tokens in work]
        vectors = self._thread.submit(self._embed, inputs, len(rows)).result()
        records, at = [], 0
        for row, work in zip(rows, prepared, strict=True):
            if isinstance(work, RowError):
                records.append(self._answers.error(row.custom_id, work, attempts))
                continue
            assert isinstance(row.request, EmbeddingRequest)
            mine, at = shorten(vectors[at : at + len(work)], row.request.dimensions), at + len(work)
            embeddings = Embeddings(mine, sum(map(len, work)))
            records.append(self._answers.embedding(row, embeddings, attempts))
        return records

    def pulse(self) -> Pulse:
        return self._pulse

    def close(self) -> None:
        self._thread.shutdown()

    def _prepare(self, row: Row) -> list[list[int]] | RowError:
        model = self._embedder.model
        try:
            request = _served(row.request, self._names)
            if not isinstance(request, EmbeddingRequest):
                raise RowError(
                    "invalid_request",
                    "the model gives embeddings only: use a generative model for this endpoint",
                )
            if request.dimensions and request.dimensions > model.dimensions:
                raise RowError(
                    "invalid_request",
                    f"dimensions must be from 1 to {model.dimensions}, the model's vector length",
                    "dimensions",
                )
            inputs = embedding_inputs(model.vocabulary, request, None if self._truncate else model.context)
            return [fit(tokens, model.context, self._truncate, model.vocabulary) for tokens in inputs]
        except RowError as error:
            return error

    def _embed(self, inputs: list[list[int]], rows: int) -> NDArray[np.float32]:
        before = self._pulse
        self._pulse = replace(before, running=rows)
        vectors = self._embedder.embed(inputs)
        tokens = before.prompt_tokens + sum(map(len, inputs))
        self._pulse = Pulse(prompt_tokens=tokens, rows=before.rows + rows)
        return vectors


def _served(request: Request | RowError, names: frozenset[str]) -> Request:
    if isinstance(request, RowError):
        raise request
    if request.model not in names:
        served = ", ".join(f'"{name}"' for name in sorted(names))
        raise RowError(
            "model_not_found", f'the model "{request.model}" is not served; served: {served}', "model"
        )
    return request


def _params(request: GenerationFields, name: str) -> SamplingParams:
    """A row without a seed gets one from its name, so that a retry gives the same text."""
    seed = request.seed
    if seed is None:
        seed = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())
    return SamplingParams(
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        min_p=request.min_p,
        repeat_penalty=request.repeat_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=seed,
    )
