"""Many inputs in, one normalised vector each out: sorted by length and packed into full calls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.model import EmbeddingModel, Vocabulary
from pipeline.errors import RowError, WorkerError


class Embedder:
    """Feeds an EmbeddingModel with calls that are full and whose inputs are of like length."""

    def __init__(self, model: EmbeddingModel, short: int | None = None) -> None:
        """short: tokens of a call of short inputs, where that is faster; see `pack`."""
        self.model = model
        self._short = short

    def embed(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Vectors of length 1 (as OpenAI's), shape [len(inputs), model.dimensions], in the inputs' order.

        Every input has 1 to `model.context` tokens (see `fit`), else ValueError. Raises WorkerError.
        """
        lengths = [len(tokens) for tokens in inputs]
        if any(not 0 < length <= self.model.context for length in lengths):
            raise ValueError(f"every input must have 1 to {self.model.context} tokens")
        pooled = np.empty((len(inputs), self.model.dimensions), np.float32)
        for call in pack(lengths, self.model.batch_tokens, self.model.max_sequences, self._short):
            pooled[call] = self.model.embed([inputs[index] for index in call])
        if not np.isfinite(pooled).all():
            raise WorkerError("the model gave a vector with numbers that are not finite")
        return normalised(pooled)


def pack(lengths: Sequence[int], tokens: int, count: int, short: int | None = None) -> list[list[int]]:
    """Indices into `lengths`, longest first, in calls of at most `tokens` tokens and `count` inputs.

    An input longer than `tokens` has a call of its own. short: the most tokens of a call, unless it has room
    for fewer than two of its longest input: in an encoder, every token looks at every other one of its call.
    """
    calls: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if not calls or lengths[index] > room or len(calls[-1]) == count:
            calls.append([])
            room = tokens if short is None else min(tokens, max(short, 2 * lengths[index]))
        calls[-1].append(index)
        room -= lengths[index]
    return calls


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1, float32; a row of zeros stays."""
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=-1, keepdims=True)
    return (exact / np.where(norms > 0, norms, 1)).astype(np.float32)


def shorten(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first `dimensions` numbers of each row, of length 1 again; None leaves them as they are.

    Raises RowError where the vectors have fewer.
    """
    if dimensions is None or dimensions == vectors.shape[-1]:
        return vectors
    if not 0 < dimensions <= vectors.shape[-1]:
        raise RowError(
            "invalid_request",
            f"dimensions is {dimensions}, but the model's vectors have {vectors.shape[-1]}: "
            f"1 to {vectors.shape[-1]} are allowed",
            "dimensions",
        )
    return normalised(vectors[..., :dimensions])


def fit(
    tokens: Sequence[int],
    limit: int,
    truncate: bool,
    vocabulary: Vocabulary | None = None,
    name: str = "input",
) -> list[int]:
    """`tokens`, at most `limit` of them; cut only if `truncate`, and then a closing SEP or EOS stays.

    vocabulary: tells whether the last token is such a one; without it, it is taken to be. name: the input's.
    Raises RowError: context_length_exceeded for too many tokens, invalid_request for none.
    """
    if not tokens:
        raise RowError("invalid_request", f"{name} has no tokens: it needs at least one", name)
    if len(tokens) <= limit:
        return list(tokens)
    if not truncate:
        raise RowError(
            "context_length_exceeded",
            f"{name} has {len(tokens)} tokens, but at most {limit} are allowed: shorten it, or let the "
            "job cut such inputs with request.truncate: true",
            name,
        )
    closes = vocabulary is None or vocabulary.piece(tokens[-1]) == b""
    closing = [tokens[-1]] if closes else []
    return [*tokens[: limit - len(closing)], *closing]
