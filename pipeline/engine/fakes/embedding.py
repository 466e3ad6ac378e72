"""A small deterministic EmbeddingModel: a vector is a function of its input's tokens and their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.errors import WorkerError


class FakeEmbeddingModel:
    """Keeps the promises of `EmbeddingModel`, checks its caller's, and notes the shape of each call."""

    def __init__(
        self,
        dimensions: int = 8,
        context: int = 64,
        batch_tokens: int = 64,
        max_sequences: int = 8,
        fail_at_call: int | None = None,
    ) -> None:
        """fail_at_call: this call, counted from 0, raises WorkerError."""
        self.vocabulary = FakeVocabulary()
        self.dimensions = dimensions
        self.context = context
        self.batch_tokens = batch_tokens
        self.max_sequences = max_sequences
        self.calls: list[list[int]] = []
        self._fail_at_call = fail_at_call

    def embed(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        lengths = [len(tokens) for tokens in inputs]
        assert 0 < len(inputs) <= self.max_sequences
        assert min(lengths) > 0 and max(lengths) <= self.context
        assert len(inputs) == 1 or sum(lengths) <= self.batch_tokens
        if len(self.calls) == self._fail_at_call:
            raise WorkerError("a failure on demand")
        self.calls.append(lengths)
        return np.stack([self._vector(tokens) for tokens in inputs])

    def _vector(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        numbers = np.random.default_rng(list(tokens)).standard_normal(self.dimensions)
        return (3 * numbers).astype(np.float32)
