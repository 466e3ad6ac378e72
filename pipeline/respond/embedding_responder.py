"""Embedding requests become vectors, the inputs of many rows packed into each call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.answer.answers import Answers, Embeddings
from pipeline.engine.embedder import Embedder, fit, shorten
from pipeline.engine.model_thread import ModelThread
from pipeline.errors import RowError
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.request.schema import EmbeddingRequest
from pipeline.respond.responders import Record, served
from pipeline.text.prompts import embedding_inputs


class EmbeddingResponder:
    """Embeddings, the inputs of many rows packed into each call."""

    kind: Literal["generate", "embed"] = "embed"

    def __init__(
        self,
        embedder: Embedder,
        answers: Answers,
        *,
        names: frozenset[str],
        truncate: bool,
        reuse: bool = True,
        thread: ModelThread | None = None,
    ) -> None:
        """truncate: cut over-long inputs instead of refusing them. reuse: of equal inputs, embed one.
        thread: where the embedder's model was loaded; a new one for models that don't care."""
        self._embedder = embedder
        self._answers = answers
        self._names = names
        self._truncate = truncate
        self._reuse = reuse
        self._thread = thread or ModelThread()
        self._pulse = Pulse()

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        prepared = [self._prepare(row) for row in rows]
        inputs = [tokens for work in prepared if not isinstance(work, RowError) for tokens in work]
        vectors = self._thread.call(partial(self._embed, inputs, len(rows)))
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
        self._thread.close()

    def _prepare(self, row: Row) -> list[list[int]] | RowError:
        model = self._embedder.model
        try:
            request = served(row.request, self._names)
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
            return [
                fit(tokens, model.context, self._truncate, model.vocabulary, name)
                for name, tokens in zip(request.names, inputs, strict=True)
            ]
        except RowError as error:
            return error

    def _embed(self, inputs: list[list[int]], rows: int) -> NDArray[np.float32]:
        before = self._pulse
        self._pulse = replace(before, running=rows)
        vectors = self._embed_once(inputs) if self._reuse else self._embedder.embed(inputs)
        tokens = before.prompt_tokens + sum(map(len, inputs))
        self._pulse = Pulse(prompt_tokens=tokens, rows=before.rows + rows)
        return vectors

    def _embed_once(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        places: dict[tuple[int, ...], int] = {}
        order = [places.setdefault(tuple(tokens), len(places)) for tokens in inputs]
        vectors: NDArray[np.float32] = self._embedder.embed(list(places))[order]
        return vectors
