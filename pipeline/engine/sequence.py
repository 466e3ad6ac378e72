"""One row inside the engine: its prompt, what was generated, and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from pipeline.engine.sampling import Sampler, SamplingParams
from pipeline.engine.text import TextStream
from pipeline.errors import RowError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's natural-log probability in the model's own distribution, before bias, penalties and masks.

    top: the likeliest tokens there with theirs, falling.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """What a sequence became.

    tokens: all of the answer, sampled and forced, the end-of-generation token too. logprobs: one for each
    of `tokens`, where asked for. prompt_logprobs: one for each token of the prompt, None for the first,
    where asked for. complete: False for a guided answer that ended before it was whole.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    complete: bool = True

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens)


Outcome = Generation | RowError


class State(Enum):
    """WAITING has no slot; PREFILL has cells but no token yet; DECODE generates; FINISHED left its slot."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A request as the engine sees it, and its progress.

    prompt: token ids, at least one. prefix: how many of them lead other rows as well.
    seconds: how long the row may hold a slot before it becomes `deadline_exceeded`.
    on_finish: called once, on the engine's thread, with what became of it.
    """

    prompt: list[int]
    max_tokens: int
    params: SamplingParams
    stream: TextStream
    on_finish: Callable[[Outcome], None]
    prefix: int = 0
    seconds: float = float("inf")

    state: State = State.WAITING
    slot: int = -1
    sampler: Sampler = field(init=False)
    tokens: list[int] = field(default_factory=list)
    # Cells filled so far; tokens [filled:] of prompt + tokens are still to be decoded.
    filled: int = 0
    cached: int | None = None
    started: float | None = None

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.params, self.prompt)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.tokens)

    @property
    def reserved(self) -> int:
        """Cells that the row may come to need; the last sampled token is never decoded."""
        return len(self.prompt) + self.max_tokens

    def pending(self, limit: int) -> list[int]:
        """At most `limit` tokens that still have to be decoded, in order."""
        start, stop = self.filled, min(self.length, self.filled + limit)
        if start >= len(self.prompt):
            return self.tokens[start - len(self.prompt) : stop - len(self.prompt)]
        return self.prompt[start:stop] + self.tokens[: max(0, stop - len(self.prompt))]

    def rewind(self, *, restart: bool) -> None:
        """Back to waiting, with nothing in the cache.

        What was generated stays generated, unless `restart`: decoding it again as a prompt
        gives other rounding errors than the steps that generated it.
        """
        self.state, self.slot, self.filled = State.WAITING, -1, 0
        if restart:
            self.tokens = []
            self.stream = self.stream.restart()
            self.sampler = Sampler(self.params, self.prompt)
