"""Continuous batching: rows join and leave the running batch token by token."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.blocks import AttentionCost, in_blocks
from pipeline.engine.counters import Counters
from pipeline.engine.model import GenerativeModel, NoRoom
from pipeline.engine.priority import Priority
from pipeline.engine.sampling.logprobs import TokenLogprob, token_logprob
from pipeline.engine.scheduler import Limits, Scheduler
from pipeline.engine.sequence import FinishReason, Outcome, Sampled, Sequence, State
from pipeline.engine.step import Piece, Step
from pipeline.errors import RowError, WorkerError

# A row, and the logits from which its next token is sampled.
Ready = tuple[Sequence, NDArray[np.float32]]

STREAM_TOKENS = 128
"""On CPUs, a longer step would hold up everybody who reads along."""


class Engine:
    """Runs sequences on one model. `prepare`, `submit` and `cancel` may be called from any thread, `step`
    from one."""

    def __init__(
        self,
        model: GenerativeModel,
        *,
        slots: int,
        step_tokens: int = 512,
        stream_tokens: int = STREAM_TOKENS,
        samplers: int = 1,
        reproducible: bool = False,
        attention: AttentionCost | None = None,
        share_prefixes: bool = True,
        skip_forced: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """slots: rows that generate at once. step_tokens: the most tokens of a mixed step.
        stream_tokens: of one while interactive rows generate. samplers: threads for draws that take
        milliseconds. reproducible: a row's tokens don't depend on what runs beside it.
        attention: what it costs the model on this node, for a reproducible engine.
        share_prefixes, skip_forced: off, what rows share is decoded for each, what a guide forces sampled."""
        self._model = model
        self._clock = clock
        self._reproducible = reproducible
        self._attention = attention or AttentionCost()
        self._skip_forced = skip_forced
        self._pool = ThreadPoolExecutor(samplers, "sampler")
        words = range(model.vocabulary.size)
        self._control = np.fromiter(map(model.vocabulary.is_control, words), bool)
        self._inbox: deque[Sequence] = deque()
        self._unwanted: deque[Sequence] = deque()
        limits = Limits(
            slots=slots,
            sequences=model.max_sequences,
            cells=model.cells,
            split=model.split,
            batch=model.batch_size,
            mixed=min(step_tokens, model.batch_size),
            streamed=min(stream_tokens, step_tokens, model.batch_size),
            outputs=model.max_outputs,
        )
        self._scheduler = Scheduler(
            limits, reproducible=reproducible, share=share_prefixes and model.shares_prefixes
        )
        self.counters = Counters()

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting) + len(self._inbox)

    @property
    def interactive(self) -> int:
        """Of the rows that wait, those that somebody waits for."""
        arrived = sum(row.priority is Priority.INTERACTIVE for row in list(self._inbox))
        return len(self._scheduler.waiting.of(Priority.INTERACTIVE)) + arrived

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    def prepare(self, row: Sequence) -> Sequence:
        """The row, ready for `submit`. Raises RowError where prompt and one token don't fit the context."""
        limit = self._model.context
        if len(row.prompt) >= limit:
            raise RowError(
                "context_length_exceeded",
                f"the prompt has {len(row.prompt)} tokens, and the context holds {limit}: "
                f"at most {limit - 1} tokens of prompt leave room for an answer",
            )
        row.max_tokens = min(row.max_tokens, limit - len(row.prompt))
        self._begin(row)
        return row

    def submit(self, rows: Items[Sequence]) -> None:
        """Queues prepared rows, in order."""
        self._inbox.extend(rows)

    def cancel(self, rows: Items[Sequence]) -> None:
        """Submitted rows that nobody wants any more leave at the head of the next step, wherever they stand.
        Their `on_finish` is not called. From any thread."""
        self._unwanted.extend(row for row in rows if row.state is not State.FINISHED)

    def step(self) -> None:
        """Admit, decode, sample; finished rows are told by their `on_finish`. Raises WorkerError."""
        began, done = time.perf_counter(), self.counters
        prompt, completion = done.prompt_tokens, done.completion_tokens
        self._take_inbox()
        self._withdraw()
        self._expire()
        self._settle_cells()
        self._admit()
        self._note_starts()
        self._settle_cells()
        step = self._scheduler.next_step()
        if step.parts:
            self._advance(*self._decode(step))
        done.steps += 1
        done.held_cells = self._scheduler.held
        seconds = time.perf_counter() - began
        done.busy_seconds += seconds
        prompt, completion = done.prompt_tokens - prompt, done.completion_tokens - completion
        done.note_pace(seconds, prompt, completion, waiting=bool(self._scheduler.waiting))

    def _take_inbox(self) -> None:
        while self._inbox:
            row = self._inbox.popleft()
            row.queued = self._clock()
            self._scheduler.submit(row)
            self.counters.completion_tokens += len(row.tokens)
            if row.ended:
                self._finish(row, row.ended)

    def _withdraw(self) -> None:
        while self._unwanted:
            row = self._unwanted.popleft()
            if row.state is not State.FINISHED:
                self._scheduler.finish(row)

    def _admit(self) -> None:
        """Gives slots to waiting rows, if need be those of batch rows to interactive ones."""
        self._scheduler.admit()
        while (row := self._scheduler.yielding()) and self._preempt(row):
            self._scheduler.admit()

    def _begin(self, row: Sequence) -> None:
        row.begin(skip_forced=self._skip_forced, limit=self._model.context)
        if row.lead and not np.array_equal(row.beginning, row.lead.beginning):
            row.lead.followers -= 1
            row.lead = None
        if row.lead:
            row.share_judgements(row.lead)
        if self._reproducible:
            row.blocks = in_blocks(row.beginning, self._control, self._attention)

    def _settle_cells(self) -> None:
        """Cells of rows that left are dropped, before others take the same sequence ids."""
        for slot, start in self._scheduler.released:
            self._model.forget(slot, start)
        self._scheduler.released.clear()
        followers: list[Ready] = []
        for row, source in self._scheduler.shares():
            self._model.share(source, row.slot, row.filled)
        for row in self._scheduler.running:
            if row.lead and row.filled == row.length and row.lead.first_logits is not None:
                followers.append((row, row.lead.first_logits.copy()))
        self._sample(followers)

    def _decode(self, step: Step) -> tuple[Step, NDArray[np.float32]]:
        """The step that was decoded, smaller than `step` where the cache had no room, and its logits."""
        while True:
            began = time.perf_counter()
            try:
                return step, self._model.decode(step.batch())
            except NoRoom:
                smaller = None if self._reproducible else step.half()
                step = smaller or self._make_room()
            finally:
                self.counters.decode_seconds += time.perf_counter() - began
                for filler in step.fillers:
                    self._model.forget(filler.slot, filler.position)

    def _make_room(self) -> Step:
        if not self._preempt():
            raise WorkerError("the KV cache has no room for a single row; try a smaller engine.context")
        self._settle_cells()
        return self._scheduler.next_step()

    def _preempt(self, row: Sequence | None = None) -> bool:
        """Whether there was a row to spare: `row`, or the youngest one."""
        row = self._scheduler.preempt(row)
        if row and (self._reproducible or row.echo):
            # Decoded again as a prompt, its tokens would have other rounding errors than when generated.
            self._begin(row)
        self.counters.preemptions += row is not None
        return row is not None

    def _advance(self, step: Step, logits: NDArray[np.float32]) -> None:
        ready, line = [], 0
        for piece in step.parts:
            first, line = line, line + piece.outputs
            if not isinstance(piece, Piece):
                continue
            row, lines = piece.row, logits[first + piece.spare : line]
            samples = piece.samples
            if row.echo and row.state is State.PREFILL:
                _echo(row, lines)
            if row.state is State.PREFILL:
                self.counters.prompt_tokens += piece.count
            row.filled += piece.count
            if samples:
                ready.append((row, lines[-1]))
        self._sample(ready)

    def _sample(self, ready: list[Ready]) -> None:
        for row, logits in ready:
            self._note_first(row, logits)
        weighing = [pair for pair in ready if pair[0].decides]
        choosing = [pair for pair in ready if not pair[0].decides]
        for (row, _), sampled in zip(choosing, self._choose(choosing), strict=True):
            if isinstance(sampled, RowError):
                self._leave(row, sampled)
            else:
                self._push(row, *sampled)
        for row, logits in weighing:
            self._weigh(row, logits)

    def _push(self, row: Sequence, token: int, logprob: TokenLogprob | None) -> None:
        if logprob:
            row.found_logprobs.append(logprob)
        self._continue(row, lambda: row.push(token, ends=self._model.vocabulary.is_eog(token)))

    def _weigh(self, row: Sequence, logits: NDArray[np.float32]) -> None:
        """A choice of labels looks at the logits. The cells of what was tried out are forgotten."""
        filled = row.filled
        self._continue(row, lambda: row.weigh(logits))
        if row.state is State.FINISHED:
            return
        if row.filled < filled:
            row.filled = row.filled if self._model.shares_prefixes else 0
            self._model.forget(row.slot, row.filled)
        if row.at_hand is not None:
            logits, row.at_hand = row.at_hand, None
            self._sample([(row, logits)])

    def _continue(self, row: Sequence, take: Callable[[], FinishReason | None]) -> None:
        """The row takes what it needed logits for, and leaves where it is finished."""
        row.state = State.DECODE
        before = len(row.tokens)
        try:
            reason = take()
        except RowError as error:
            self._leave(row, error)
            return
        self.counters.completion_tokens += len(row.tokens) - before
        if row.answered is None and row.tokens:
            row.answered = self._clock()
        if reason:
            self._finish(row, reason)

    def _choose(self, ready: list[Ready]) -> Items[Sampled | RowError]:
        """Each row's next token. Rows touch nothing but their own, so that heavy draws run side by side."""
        heavy = {row: self._pool.submit(row.sample, logits) for row, logits in ready if row.sampler.heavy}
        return [heavy[row].result() if row in heavy else row.sample(logits) for row, logits in ready]

    def _note_first(self, row: Sequence, logits: NDArray[np.float32]) -> None:
        """Keeps the logits after the beginning for the rows that take it over."""
        if row.state is not State.PREFILL:
            return
        if row.followers and row.first_logits is None:
            row.first_logits = logits.copy()
        if row.lead and row.lead.first_logits is not None:
            row.lead.followers -= 1
            if not row.lead.followers:
                row.lead.first_logits = None
            row.lead = None  # Thrown out, it begins by itself.

    def _finish(self, row: Sequence, reason: FinishReason) -> None:
        generation = row.finish(reason, self._clock())
        self.counters.cached_tokens += generation.cached_tokens
        self._leave(row, generation)

    def _note_starts(self) -> None:
        now = self._clock()
        for row in self._scheduler.running:
            row.started = now if row.started is None else row.started

    def _expire(self) -> None:
        now = self._clock()
        for row in list(self._scheduler.running):
            if row.started is not None and now - row.started > row.deadlines.running:
                late = f"no answer within {row.deadlines.running:g} s, {len(row.tokens)} tokens so far"
                self._leave(row, RowError("deadline_exceeded", f"{late}; see retry.row_deadline"))

        for row in list(self._scheduler.waiting.of(Priority.INTERACTIVE)):
            if row.started is None and now - row.queued > row.deadlines.waiting:
                late = f"no slot was free within {row.deadlines.waiting:g} s: the engine is busy"
                self._leave(row, RowError("deadline_exceeded", f"{late}; try again later"))

    def _leave(self, row: Sequence, outcome: Outcome) -> None:
        self._scheduler.finish(row)
        self.counters.rows += 1
        row.on_finish(outcome)


def _echo(row: Sequence, logits: NDArray[np.float32]) -> None:
    """The log-probabilities of the prompt's tokens that the next pending ones predict."""
    if not row.prompt_logprobs:
        row.prompt_logprobs.append(None)
    following = row.prompt[row.filled + 1 : row.filled + 1 + len(logits)]
    for token, line in zip(following, logits, strict=False):
        row.prompt_logprobs.append(token_logprob(line, token, row.logprobs or 0))
