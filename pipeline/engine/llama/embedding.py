"""llama.cpp as an EmbeddingModel: encoders (BERT) and causal embedders, one pooled vector per input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import llama_cpp as lib
import numpy as np
from numpy.typing import NDArray

from pipeline.config import EngineConfig
from pipeline.engine.llama.llama import LlamaBatch, LlamaFile, LlamaVocabulary, last_complaints, new_context
from pipeline.engine.model import Batch
from pipeline.engine.settings import EngineSettings, ModelTraits, fit
from pipeline.errors import ModelError, WorkerError

_NONE, _LAST, _RANK = "0", "3", "4"  # llama_pooling_type, as the GGUF's metadata spells it
_CPU_TOKENS, _GPU_TOKENS = 512, 8192
SHORT_TOKENS = 256
"""Tokens of a call of short inputs on a CPU: fewer leave its matrices idle, more are masked in vain."""
_INPUTS = 64


def is_embedding_model(traits: ModelTraits) -> bool:
    """Whether the GGUF says how to pool its tokens, which generative models don't."""
    return traits.pooling not in ("", _NONE)


def embedding_settings(
    config: EngineConfig, traits: ModelTraits, *, threads: int, on_gpu: bool
) -> EngineSettings:
    """Settings for embeddings. context: tokens of one input. batch: tokens that a call packs.

    sequences: inputs of a call. Raises ConfigError where the job asks for what can't be had.
    """
    shared = fit(config, traits, threads=threads, on_gpu=on_gpu, memory=1 << 50)
    batch = (_GPU_TOKENS if on_gpu else _CPU_TOKENS) if config.batch == "auto" else config.batch
    capacity = max(batch, shared.context)
    sequences = _INPUTS if config.slots == "auto" else config.slots
    return replace(
        shared,
        slots=sequences,
        sequences=sequences,
        cells=capacity,
        batch=batch,
        # Only pooling by the last token lets an input straddle two physical batches.
        ubatch=min(capacity, 512) if traits.pooling == _LAST else capacity,
        split=False,
    )


class LlamaEmbeddingModel:
    """`EmbeddingModel` over `llama_encode`, or `llama_decode` for a causal model.

    A call takes `batch_tokens` tokens, or a single longer input of at most `context`.
    """

    def __init__(self, file: LlamaFile, config: EngineConfig, *, threads: int, on_gpu: bool = False) -> None:
        """Raises ModelError where the model gives no single vector per input, or doesn't fit."""
        _check_pooling(file)
        settings = embedding_settings(config, file.traits, threads=threads, on_gpu=on_gpu)
        capacity = max(settings.batch, settings.context)
        self._file = file
        self._context = new_context(file, replace(settings, batch=capacity), embedding=True)
        # An encoder keeps nothing between calls: it has no memory at all.
        self._memory = lib.llama_get_memory(self._context.value)
        self._batch = LlamaBatch(capacity)
        self.vocabulary = LlamaVocabulary(file)
        self.dimensions = file.dimensions
        self.context = settings.context
        self.batch_tokens = settings.batch
        self.max_sequences = settings.sequences

    def embed(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        # Misuse is an assert inside llama.cpp, which would end the process.
        if not 0 < len(inputs) <= self.max_sequences:
            raise WorkerError(f"a call of {len(inputs)} inputs, but 1 to {self.max_sequences} are allowed")
        if any(not 0 < len(tokens) <= self.context for tokens in inputs):
            raise WorkerError(f"every input must have 1 to {self.context} tokens")
        self._batch.fill(_flatten(inputs))
        self._run()
        return np.stack([self._pooled(sequence) for sequence in range(len(inputs))])

    def use_threads(self, threads: int) -> None:
        """The CPU threads of the calls from now on."""
        lib.llama_set_n_threads(self._context.value, threads, threads)

    def _run(self) -> None:
        if self._memory:
            lib.llama_memory_clear(self._memory, True)
            status = lib.llama_decode(self._context.value, self._batch.struct)
        else:
            status = lib.llama_encode(self._context.value, self._batch.struct)
        if status != 0:
            raise WorkerError(f"llama.cpp returned {status} for a batch of inputs: {last_complaints()}")

    def _pooled(self, sequence: int) -> NDArray[np.float32]:
        pointer = lib.llama_get_embeddings_seq(self._context.value, sequence)
        if not pointer:
            raise WorkerError(f"llama.cpp gave no vector for input {sequence}")
        return np.ctypeslib.as_array(pointer, (self.dimensions,)).copy()


def _flatten(inputs: Sequence[Sequence[int]]) -> Batch:
    tokens = [token for one in inputs for token in one]
    positions = [position for one in inputs for position in range(len(one))]
    sequences = [sequence for sequence, one in enumerate(inputs) for _ in one]
    return Batch(tokens, positions, sequences, [True] * len(tokens))


def _check_pooling(file: LlamaFile) -> None:
    if file.traits.pooling == _RANK:
        raise ModelError(f"{file.path} is a reranker: it gives a score for a pair of texts, not a vector")
    if not is_embedding_model(file.traits):
        raise ModelError(
            f"{file.path} names no pooling (mean, cls or last) in its metadata, so it gives no single vector "
            "per input: use an embedding model for /v1/embeddings"
        )
