"""A small deterministic model behind the engine's protocols: letters as tokens, failures on demand.

The next token is a function of every token in the sequence's cells, so that a neighbour's cell in
the wrong place, a cell too many or one too few changes the text.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.model import Batch, NoRoom
from pipeline.engine.sampling.logit_edits import LogitEdit
from pipeline.errors import RowError, WorkerError

BOS, EOS, IM_START, IM_END = 256, 257, 258, 259
_CONTROL = {"<s>": BOS, "</s>": EOS, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class FakeVocabulary:
    """One token a byte, and four control tokens."""

    size = 260
    chat_template: str | None = _TEMPLATE
    tool_template: str | None = None
    bos_text = "<s>"
    eos_text = "</s>"
    control_texts = tuple(_CONTROL)
    longest_piece = max(map(len, _CONTROL))

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokens = [BOS] if add_special else []
        while text:
            control = next((name for name in _CONTROL if parse_special and text.startswith(name)), None)
            tokens += [_CONTROL[control]] if control else text[0].encode()
            text = text[len(control) if control else 1 :]
        return tokens

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""

    end_tokens = (EOS, IM_END)

    def is_eog(self, token: int) -> bool:
        return token in self.end_tokens

    def is_control(self, token: int) -> bool:
        return token >= 256

    def dry_penalty(self, prompt: Sequence[int], **settings: Any) -> LogitEdit:
        raise RowError("unsupported_parameter", "the fake model has no dry sampler", "dry_multiplier")


@dataclass(slots=True)
class FakeModel:
    """A `GenerativeModel` whose cells are lists. fails: called before each decode, may raise."""

    cells: int = 4096
    split: bool = False
    context: int = 256
    max_sequences: int = 13
    batch_size: int = 64
    max_outputs: int = 64
    shares_prefixes: bool = True
    seconds: float = 0.0
    fails: Callable[[Batch], None] = lambda batch: None
    vocabulary: FakeVocabulary = field(default_factory=FakeVocabulary)
    calls: int = 0
    # Cells by sequence id; a shared cell counts once, as the same object.
    held: dict[int, list[_Cell]] = field(default_factory=dict)

    def decode(self, batch: Batch) -> NDArray[np.float32]:
        if not 0 < len(batch) <= self.batch_size:
            raise WorkerError(f"a batch of {len(batch)} tokens")
        self.calls += 1
        self.fails(batch)
        if self.seconds:
            time.sleep(self.seconds)
        if self.used + len(batch) > self._room():
            raise NoRoom(f"{self.used} cells of {self._room()} are taken")
        rows = []
        for token, position, sequence, wants in zip(
            batch.tokens, batch.positions, batch.sequence_ids, batch.wants_logits, strict=True
        ):
            cells = self.held.setdefault(sequence, [])
            if position != len(cells) or not 0 <= sequence < self.max_sequences:
                raise WorkerError(f"position {position} of sequence {sequence}, which holds {len(cells)}")
            cells.append(_Cell(token))
            if wants:
                rows.append(next_logits([cell.token for cell in cells]))
        return np.array(rows, np.float32).reshape(-1, self.vocabulary.size)

    @property
    def used(self) -> int:
        return len({id(cell) for cells in self.held.values() for cell in cells})

    def share(self, source: int, target: int, length: int) -> None:
        if self.held.get(target):
            raise WorkerError(f"sequence {target} is not empty")
        if len(self.held.get(source, ())) < length:
            raise WorkerError(f"sequence {source} has no {length} cells")
        cells = self.held[source][:length]
        self.held[target] = [_Cell(cell.token) for cell in cells] if self.split else cells

    def forget(self, sequence: int, start: int = 0) -> None:
        del self.held.get(sequence, [])[start:]

    def _room(self) -> int:
        return self.cells * (self.max_sequences if self.split else 1)


class _Cell:
    __slots__ = ("token",)

    def __init__(self, token: int) -> None:
        self.token = token


def next_logits(tokens: list[int]) -> NDArray[np.float32]:
    """What the fake model thinks of a beginning; letters are likely, the end comes now and then."""
    digest = hashlib.blake2b(np.array(tokens, np.int32).tobytes(), digest_size=8).digest()
    logits = np.random.default_rng(int.from_bytes(digest)).standard_normal(FakeVocabulary.size)
    logits[ord("a") : ord("z") + 1] += 4
    logits[EOS] += 3
    return logits.astype(np.float32)
