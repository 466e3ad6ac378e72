"""Continuous batching: rows join and leave the running batch token by token."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.model import Batch, GenerativeModel, NoRoom
from pipeline.engine.prefixes import Prefix
from pipeline.engine.scheduler import Piece, Scheduler, Step
from pipeline.engine.sequence import FinishReason, Generation, Outcome, Sequence, State
from pipeline.errors import RowError, WorkerError


@dataclass(slots=True)
class Counters:
    """What the engine has done so far. Seconds: in the model, and in all steps."""

    steps: int = 0
    decode_seconds: float = 0.0
    busy_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rows: int = 0
    preemptions: int = 0


class Engine:
    """Runs sequences on one model. `submit` may be called from any thread, `step` from one."""

    def __init__(
        self,
        model: GenerativeModel,
        *,
        slots: int,
        step_tokens: int = 512,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """slots: rows that generate at once. step_tokens: the most tokens of a mixed step."""
        self._model = model
        self._clock = clock
        self._inbox: deque[Sequence] = deque()
        self._scheduler = Scheduler(
            slots=slots,
            sequences=model.max_sequences,
            cells=model.cells,
            split=model.split,
            batch=model.batch_size,
            step=min(step_tokens, model.batch_size),
        )
        self.counters = Counters()

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting) + len(self._inbox)

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    def submit(self, sequence: Sequence) -> None:
        """Queues a row. Raises RowError where prompt and one token don't fit the context."""
        limit = self._model.context
        if len(sequence.prompt) >= limit:
            raise RowError(
                "context_length_exceeded",
                f"the prompt has {len(sequence.prompt)} tokens, and the context holds {limit}: "
                f"at most {limit - 1} tokens of prompt leave room for an answer",
            )
        sequence.max_tokens = min(sequence.max_tokens, limit - len(sequence.prompt))
        # The last prompt token is decoded by the row itself: its logits are needed.
        sequence.prefix = min(sequence.prefix, len(sequence.prompt) - 1)
        self._inbox.append(sequence)

    def step(self) -> None:
        """Admit, decode, sample; finished rows are told by their `on_finish`. Raises WorkerError."""
        began = time.perf_counter()
        self._take_inbox()
        self._expire()
        self._scheduler.admit()
        self._settle_cells()
        step = self._scheduler.next_step()
        if step.pieces:
            self._advance(*self._decode(step))
        self.counters.steps += 1
        self.counters.busy_seconds += time.perf_counter() - began

    def _take_inbox(self) -> None:
        while self._inbox:
            self._scheduler.submit(self._inbox.popleft())

    def _settle_cells(self) -> None:
        """Cells of rows that left are dropped, before others take the same sequence ids."""
        for slot, start in self._scheduler.released:
            self._model.forget(slot, start)
        self._scheduler.released.clear()
        for row, prefix in self._scheduler.shares():
            self._model.share(prefix.slot, row.slot, len(prefix.tokens))

    def _decode(self, step: Step) -> tuple[Step, NDArray[np.float32]]:
        """The step that was decoded, smaller than `step` where the cache had no room, and its logits."""
        while True:
            began = time.perf_counter()
            try:
                return step, self._model.decode(_batch(step))
            except NoRoom:
                smaller = None if self._model.split else step.half()
                step = smaller or self._make_room()
            finally:
                self.counters.decode_seconds += time.perf_counter() - began
                for slot, position in step.dummies:
                    self._model.forget(slot, position)

    def _make_room(self) -> Step:
        if self._scheduler.preempt() is None:
            raise WorkerError("the KV cache has no room for a single row; try a smaller engine.context")
        self.counters.preemptions += 1
        self._settle_cells()
        return self._scheduler.next_step()

    def _advance(self, step: Step, logits: NDArray[np.float32]) -> None:
        line = 0
        for piece in step.pieces:
            work = piece.work
            work.filled += piece.count
            if isinstance(work, Prefix) or work.state is State.PREFILL:
                self.counters.prompt_tokens += piece.count
            if piece.wants and isinstance(work, Sequence):
                self._sample(work, logits[line])
                line += 1

    def _sample(self, row: Sequence, logits: NDArray[np.float32]) -> None:
        try:
            token = row.sampler.sample(logits)
        except RowError as error:
            self._leave(row, error)
            return
        row.sampler.accept(token)
        row.state = State.DECODE
        row.tokens.append(token)
        self.counters.completion_tokens += 1
        if self._model.vocabulary.is_eog(token) or row.stream.push(token):
            self._finish(row, "stop")
        elif len(row.tokens) >= row.max_tokens:
            self._finish(row, "length")

    def _finish(self, row: Sequence, reason: FinishReason) -> None:
        cached = row.cached or 0
        self.counters.cached_tokens += cached
        self._leave(row, Generation(row.stream.finish(), tuple(row.tokens), reason, len(row.prompt), cached))

    def _expire(self) -> None:
        now = self._clock()
        for row in list(self._scheduler.running):
            row.started = now if row.started is None else row.started
            if now - row.started > row.seconds:
                late = f"no answer within {row.seconds:g} s, {len(row.tokens)} tokens so far"
                self._leave(row, RowError("deadline_exceeded", f"{late}; see retry.row_deadline"))

    def _leave(self, row: Sequence, outcome: Outcome) -> None:
        self._scheduler.finish(row)
        self.counters.rows += 1
        row.on_finish(outcome)


def _batch(step: Step) -> Batch:
    """The step's tokens by ascending sequence id, the order that split streams need."""
    batch = Batch([], [], [], [])
    parts: list[tuple[int, int, Piece | None]] = [(p.work.slot, p.work.filled, p) for p in step.pieces]
    parts += [(slot, position, None) for slot, position in step.dummies]
    for slot, position, piece in sorted(parts, key=itemgetter(0)) if step.dummies else parts:
        _add(batch, piece.work.pending(piece.count) if piece else [0], position, slot)
        batch.wants_logits[-1] = piece is not None and piece.wants
    return batch


def _add(batch: Batch, tokens: list[int], position: int, sequence: int) -> None:
    batch.tokens.extend(tokens)
    batch.positions.extend(range(position, position + len(tokens)))
    batch.sequence_ids.extend([sequence] * len(tokens))
    batch.wants_logits.extend([False] * len(tokens))
