"""What the engine asks of a model: a vocabulary, and either decoding or embedding.

`llama.py` implements these protocols over llama.cpp, `fake.py` in a few lines of arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import NightherdError


class NoRoom(NightherdError):
    """The KV cache has no room for this batch: send a smaller one, or free cells first."""


class Vocabulary(Protocol):
    """The model's tokenizer. Safe to use from several threads."""

    @property
    def size(self) -> int: ...
    @property
    def chat_template(self) -> str | None:
        """The GGUF's `tokenizer.chat_template` (Jinja), None where it has none."""

    @property
    def bos_text(self) -> str: ...
    @property
    def eos_text(self) -> str: ...
    @property
    def control_texts(self) -> tuple[str, ...]:
        """The texts of all control tokens ("<|im_start|>" ...), which user text must not smuggle in."""

    @property
    def longest_piece(self) -> int:
        """Bytes of the longest token, or control token's text: n bytes are at least n / this tokens."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`. add_special: BOS/EOS/CLS/SEP as the model wants them.
        parse_special: "<|im_start|>" in `text` becomes the control token, not its letters."""

    def piece(self, token: int) -> bytes:
        """The token's bytes; b"" for control tokens. It may end inside a UTF-8 character."""

    def is_eog(self, token: int) -> bool:
        """Whether `token` ends a generation."""

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """All tokens that end a generation, ascending."""

    def is_control(self, token: int) -> bool:
        """Whether `token` is a control token, which stands for no text."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of `decode`: parallel lists, one entry a token."""

    tokens: list[int]
    positions: list[int]
    sequence_ids: list[int]
    wants_logits: list[bool]

    def __len__(self) -> int:
        return len(self.tokens)


class GenerativeModel(Protocol):
    """A causal model with a KV cache of `cells` cells for `max_sequences` sequences."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def cells(self) -> int:
        """Cells that all sequences together may hold (unified) or that one may hold (`split`)."""

    @property
    def split(self) -> bool:
        """True: each sequence has its own stream of `cells` cells; only whole streams are copied."""

    @property
    def context(self) -> int:
        """The most tokens that one row may hold, prompt and output together."""

    @property
    def max_sequences(self) -> int: ...
    @property
    def batch_size(self) -> int:
        """The most tokens in one `decode` call."""

    def decode(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, shape [number of true `wants_logits`, vocabulary.size], float32, in batch order.

        A view that dies at the next call and may be written to. Raises NoRoom (nothing was
        decoded) and WorkerError (the context is broken)."""

    def share(self, source: int, target: int, length: int) -> None:
        """`target` (empty) gets the first `length` cells of sequence `source`; free where unified."""

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drops the cells of `sequence` from position `start` on."""


class EmbeddingModel(Protocol):
    """A model that turns each input into one pooled vector."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    @property
    def context(self) -> int:
        """The most tokens of one input."""

    @property
    def batch_tokens(self) -> int:
        """The most tokens of one `embed` call, all inputs together; a longer input goes alone."""

    @property
    def max_sequences(self) -> int:
        """The most inputs of one `embed` call."""

    def embed(self, inputs: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Pooled vectors, not normalised, shape [len(inputs), dimensions]. Raises WorkerError."""
