"""One row inside the engine: its prompt, what was generated, and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.guide import Guide
from pipeline.engine.priority import Deadlines, Priority
from pipeline.engine.sampling.deciding import Deciding, Decision
from pipeline.engine.sampling.logprobs import TokenLogprob, token_logprob
from pipeline.engine.sampling.sampling import Sampler
from pipeline.engine.text import TextStream
from pipeline.errors import RowError

FinishReason = Literal["stop", "length"]

# So many tokens are looked at in one place for one that the model's tokenizer would write.
_SPELLINGS = 8


@dataclass(frozen=True, slots=True)
class Generation:
    """What a sequence became.

    tokens: all of the answer, sampled and forced, the end-of-generation token too. logprobs: one for each
    of them, where asked for. prompt_logprobs: one for each token of the prompt, None for the first.
    decisions: the labels that were chosen, one after the other.
    complete: False where a guided answer ended before it was whole.
    seconds: from the row's slot to its last token. prompt_seconds: of them, those to the first token.
    stop: the stop string that ended the text.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    decisions: tuple[Decision, ...] = ()
    complete: bool = True
    seconds: float = field(default=0.0, compare=False)
    prompt_seconds: float = field(default=0.0, compare=False)
    stop: str | None = None

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens)


Outcome = Generation | RowError
Sampled = tuple[int, TokenLogprob | None]
"""A token, and its log-probabilities where they are asked for."""


class State(Enum):
    """WAITING has no slot; PREFILL has cells but sampled no token in them yet; DECODE generates; FINISHED
    left its slot."""

    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(slots=True, eq=False)
class Sequence:
    """A request as the engine sees it, and its progress.

    prompt: token ids, at least one. guide: in its first state; the row works on a copy.
    logprobs: how many of the likeliest tokens to tell of each place, None for no log-probabilities.
    echo: tell those of the prompt's tokens as well. every_label: find the scores of all labels of each
    decision, not only of those that may be chosen.
    healed: tokens that the prompt lacks at its end, because the answer's first token holds their text.
    lead: a row submitted before; where both begin alike, this one takes over its beginning and the logits
    after it.
    priority: who comes first. deadlines: after which the row becomes `deadline_exceeded`.
    on_finish: called once, on the engine's thread, with what became of it; not for a row that is cancelled.
    """

    prompt: list[int]
    max_tokens: int
    new_sampler: Callable[[], Sampler]
    stream: TextStream
    on_finish: Callable[[Outcome], None]
    guide: Guide | None = None
    logprobs: int | None = None
    echo: bool = False
    every_label: bool = False
    healed: int = 0
    lead: Sequence | None = None
    priority: Priority = Priority.BATCH
    deadlines: Deadlines = Deadlines()  # noqa: RUF009, it is frozen

    state: State = State.WAITING
    slot: int = -1
    # The prompt, and what the guide forces behind it: it is decoded before anything is sampled.
    beginning: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    sampler: Sampler = field(init=False)
    tokens: list[int] = field(default_factory=list)
    # Tokens that are decoded behind the text, to see what would come after them.
    trial: list[int] = field(default_factory=list)
    # Cells filled so far; tokens [filled:] of prompt + tokens + trial are still to be decoded.
    filled: int = 0
    # Which tokens of the beginning a reproducible schedule decodes in blocks.
    blocks: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    cached: int | None = None
    # Why the row is over before anything was sampled: nothing is to decide, or nothing to sample.
    ended: FinishReason | None = None
    queued: float = 0.0
    started: float | None = None
    # When the first token was there.
    answered: float | None = None
    followers: int = 0
    first_logits: NDArray[np.float32] | None = None
    # Logits after the text, from which a token can be sampled without another call.
    at_hand: NDArray[np.float32] | None = None
    decisions: list[Decision] = field(default_factory=list)
    found_logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    _guide: Guide | None = None
    _stream: TextStream = field(init=False)
    _skips: bool = True
    _limit: int = 0
    _deciding: Deciding | None = None
    # The logits after the text, while labels are tried out behind it.
    _before: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.lead:
            self.lead.followers += 1

    def begin(self, *, skip_forced: bool, limit: int) -> None:
        """To the state before the first sampled token; it may be `ended` there already.

        skip_forced: what the guide forces is taken as said, rather than sampled token by token.
        limit: the most tokens of the row, those that are only tried out too.
        """
        # Log-probabilities are asked for each token: each one has to be decoded by itself.
        self._skips = skip_forced and self.logprobs is None
        self.sampler, self._stream = self.new_sampler(), self.stream.restart()
        self._guide = self.guide.copy() if self.guide else None
        self._limit, self._deciding = limit, None
        self.tokens, self.trial, self.decisions = [], [], []
        self.found_logprobs, self.prompt_logprobs = [], []
        self.ended = self._go_on()
        self.beginning = np.array([*self.prompt, *self.tokens], np.int32)
        self.blocks = np.zeros(len(self.beginning), bool)

    @property
    def length(self) -> int:
        """Tokens that are decoded, or to be decoded, before the next logits are looked at."""
        return len(self.prompt) + len(self.tokens) + len(self.trial)

    @property
    def reserved(self) -> int:
        """Cells that the row may come to need; the last sampled token is never decoded."""
        tried = self._deciding.labels.longest if self._deciding else 0
        return len(self.prompt) + max(self.max_tokens, len(self.tokens) + tried)

    @property
    def decides(self) -> bool:
        """Whether the next logits are those of labels."""
        return self._deciding is not None

    def stretch(self) -> tuple[bool, int]:
        """Whether the next tokens are decoded in blocks, and how many there are of this kind."""
        rest = self.blocks[self.filled :]
        if not len(rest) or not rest.any():
            return False, self.length - self.filled
        same = rest == rest[0]
        if not same.all():
            return bool(rest[0]), int(same.argmin())
        return True, len(rest)

    def pending(self, limit: int) -> list[int]:
        """At most `limit` tokens that still have to be decoded, in order."""
        start, stop = self.filled, min(self.length, self.filled + limit)
        said = [*self.tokens, *self.trial] if self.trial else self.tokens
        if start >= len(self.prompt):
            return said[start - len(self.prompt) : stop - len(self.prompt)]
        return self.prompt[start:stop] + said[: max(0, stop - len(self.prompt))]

    def sample(self, logits: NDArray[np.float32]) -> Sampled | RowError:
        """The next token, or why there is none. Writes to `logits`, shape [vocabulary].

        It touches nothing but this row, so that many rows may sample at once.
        """
        raw = None if self.logprobs is None else logits.copy()
        try:
            if self._guide:
                self._guide.mask(logits)
            token = self._spelled(self.sampler.sample(logits), logits)
        except RowError as error:
            return error
        if raw is None or self.logprobs is None:
            return token, None
        return token, token_logprob(raw, token, self.logprobs)

    def _spelled(self, token: int, logits: NDArray[np.float32]) -> int:
        """`token`, or the next choice that the model's tokenizer would write, where there is one."""
        found = token
        for _ in range(_SPELLINGS if self._guide else 0):
            assert self._guide is not None
            if self._guide.spells(found):
                return found
            logits[found] = -np.inf
            if not np.isfinite(logits.max()):
                break
            found = self.sampler.again(logits)
        return token

    def push(self, token: int, *, ends: bool) -> FinishReason | None:
        """Takes a sampled token and what it forces; why the row is finished, if it is. ends: it is an
        end-of-generation token. Raises RowError where the guide can't be followed any further."""
        return self._take(token, ends=ends) or self._go_on()

    def weigh(self, logits: NDArray[np.float32]) -> FinishReason | None:
        """Takes the logits that a choice of labels asked for; why the row is finished, if it is. Cells behind
        `filled` are no longer the row's. Raises RowError where no label can be chosen."""
        assert self._deciding is not None
        known, tried = len(self.prompt) + len(self.tokens), self.trial
        if not tried:
            self._before = logits.copy()
        self._deciding.take(logits)
        reason = self._settle()
        following = [*self.tokens[known - len(self.prompt) :], *self.trial]
        if following:
            # The logits after the last token are wanted once more.
            self.filled = known + min(_common(tried, following), len(following) - 1)
        else:
            self.filled, self.at_hand = known, self._before
        return reason

    def share_judgements(self, other: Sequence) -> None:
        """What either row finds out about the labels after its beginning, both know. Both begin alike."""
        if self._deciding and other._deciding and other._deciding.labels is self._deciding.labels:
            self._deciding.judged = other._deciding.judged

    def finish(self, reason: FinishReason, now: float = 0.0) -> Generation:
        """now: the time by the clock of `started`."""
        return Generation(
            text=self._stream.finish(),
            tokens=tuple(self.tokens),
            finish_reason=reason,
            prompt_tokens=len(self.prompt) + self.healed,
            cached_tokens=min(self.cached or 0, len(self.prompt)),
            logprobs=tuple(self.found_logprobs),
            prompt_logprobs=tuple(self.prompt_logprobs),
            decisions=tuple(self.decisions),
            complete=self._guide is None or self._guide.complete,
            seconds=0.0 if self.started is None else now - self.started,
            stop=self._stream.stop,
            prompt_seconds=(self.answered or 0.0) - (self.started or 0.0) if self.answered else 0.0,
        )

    def so_far(self) -> str:
        """The text that is certain while the row runs: no stop string can take it back."""
        return self._stream.so_far()

    def rewind(self) -> None:
        """Back to waiting, with nothing in the cache. What was generated stays generated."""
        self.state, self.slot, self.filled = State.WAITING, -1, 0

    def _take(self, token: int, *, ends: bool) -> FinishReason | None:
        self.tokens.append(token)
        self.sampler.accept(token)
        if ends:
            return "stop"
        if self._guide:
            self._guide.accept(token)
        if self._stream.push(token) or (self._skips and self._guide and self._guide.done):
            return "stop"
        return "length" if len(self.tokens) >= self.max_tokens else None

    def _go_on(self) -> FinishReason | None:
        """Takes what the guide forces, up to where there is a choice."""
        while self._guide:
            for token in self._guide.forced() if self._skips else ():
                if reason := self._take(token, ends=False):
                    return reason
            labels = self._guide.labels()
            if not labels or self.length + labels.longest > self._limit:
                break
            self._deciding = Deciding(labels, self.sampler.labels, every=self.every_label)
            if not self._deciding.done:
                break
            self._choose(self._deciding)
        return None

    def _settle(self) -> FinishReason | None:
        deciding = self._deciding
        assert deciding is not None
        self.trial = [] if deciding.done else list(deciding.path)
        if not deciding.done:
            return None
        self._choose(deciding)
        return self._go_on()

    def _choose(self, deciding: Deciding) -> None:
        assert self._guide is not None
        self.decisions.append(deciding.decision)
        self._guide.choose(deciding.decision.chosen)
        self._deciding = None


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
