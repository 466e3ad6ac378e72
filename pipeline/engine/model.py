"""What the engine asks of a model: a vocabulary, and either decoding or embedding.

`llama.py` implements these protocols over llama.cpp, `fake.py` in a few lines of arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.logit_edits import LogitEdit
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
    def tool_template(self) -> str | None:
        """The GGUF's own template for requests with tools, None where the other one serves them too."""

    @property
    def bos_text(self) -> str: ...
    @property
    def eos_text(self) -> str: ...
    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end a generation, ascending."""

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

    def is_control(self, token: int) -> bool:
        """Whether `token` is no text, but a mark of the template or the model."""

    def dry_penalty(
        self,
        prompt: Sequence[int],
        *,
        multiplier: float,
        base: float,
        allowed_length: int,
        last_n: int,
        breakers: tuple[str, ...],
    ) -> LogitEdit:
        """llama.cpp's dry sampler at the end of `prompt`. last_n: tokens it looks back, -1 for all.
        Raises RowError where the model's library has none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of `decode`: parallel lists, one entry a token."""

    tokens: list[int]
    positions: list[int]
    sequence_ids: list[int]
    wants_logits: list[bool]

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, sequence: int, position: int, tokens: list[int], wants: int) -> None:
        """More tokens of a sequence, from `position` on. wants: after how many of them, the last ones,
        logits are wanted."""
        self.tokens.extend(tokens)
        self.positions.extend(range(position, position + len(tokens)))
        self.sequence_ids.extend([sequence] * len(tokens))
        self.wants_logits.extend([False] * (len(tokens) - wants) + [True] * wants)


class GenerativeModel(Protocol):
    """A causal model with a KV cache of `cells` cells for `max_sequences` sequences."""

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def cells(self) -> int:
        """Cells that all sequences together may hold (unified) or that one may hold (`split`)."""

    @property
    def split(self) -> bool:
        """True: each sequence has its own stream of `cells` cells."""

    @property
    def context(self) -> int:
        """The most tokens that one row may hold, prompt and output together."""

    @property
    def max_sequences(self) -> int: ...
    @property
    def batch_size(self) -> int:
        """The most tokens in one `decode` call."""

    @property
    def max_outputs(self) -> int:
        """The most true `wants_logits` in one `decode` call."""

    @property
    def shares_prefixes(self) -> bool:
        """Whether a sequence's state can be cut back to any of its beginnings."""

    def decode(self, batch: Batch) -> NDArray[np.float32]:
        """Logits, shape [number of true `wants_logits`, vocabulary.size], float32, in batch order.

        A view that dies at the next call and may be written to. Raises NoRoom (nothing was
        decoded) and WorkerError (the context is broken)."""

    def share(self, source: int, target: int, length: int) -> None:
        """`target` (empty) gets the first `length` cells of sequence `source`; free where unified, else
        a copy of the whole stream, cut back."""

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
