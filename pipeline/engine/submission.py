"""Sequences that are answered together, while the engine has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from pipeline.engine.engine import Engine
from pipeline.engine.sequence import Outcome
from pipeline.engine.sequence import Sequence as Row
from pipeline.errors import RowError, WorkerError

NewSequence = Callable[[Callable[[Outcome], None]], Row]
"""Makes a sequence with the function that must be told what became of it."""
Watch = Callable[[Sequence[tuple[Row, Outcome | None]]], None]
"""Looks at sequences after a step, and at what became of those that have left."""


class Submission:
    """outcomes: what became of each sequence, in order. It raises WorkerError where the engine broke, and
    CancelledError after `cancel`, which `outcomes.cancel` is the same as."""

    def __init__(self, engine: Engine, sequences: Sequence[NewSequence], watch: Watch | None = None) -> None:
        """watch: called on the engine's thread, at most once a step, and for the last time before there are
        outcomes. What it raises is raised by `outcomes`."""
        self.outcomes: Future[list[Outcome]] = Future()
        self.rows: list[Row] = []
        self.watch = watch
        self._engine = engine
        self._found: list[Outcome | None] = [None] * len(sequences)
        for at, new in enumerate(sequences):
            self._prepare(at, new)
        self.outcomes.add_done_callback(self._withdraw)

    def cancel(self) -> None:
        """Nobody wants the outcomes: the rows leave at the engine's next step. From any thread."""
        self.outcomes.cancel()

    def look(self) -> None:
        """After a step: shows the rows to `watch`, and gives the outcomes once all are there."""
        try:
            if self.watch and self.rows:
                self.watch([(row, self._found[at]) for at, row in enumerate(self.rows)])
        except Exception as failure:
            self.fail(failure)
            self._engine.cancel(self.rows)
        else:
            self.settle()

    def settle(self) -> None:
        """Gives the outcomes, if all are there."""
        found = [outcome for outcome in self._found if outcome is not None]
        if len(found) == len(self._found) and self.outcomes.set_running_or_notify_cancel():
            self.outcomes.set_result(found)

    def fail(self, failure: Exception) -> None:
        if self.outcomes.set_running_or_notify_cancel():
            self.outcomes.set_exception(failure)

    def _prepare(self, at: int, new: NewSequence) -> None:
        try:
            self.rows.append(self._engine.prepare(new(partial(self._set, at))))
        except RowError as error:
            self._found[at] = error

    def _set(self, at: int, outcome: Outcome) -> None:
        if self._found[at] is not None:
            raise WorkerError(f"row {at} of a request was answered twice")
        self._found[at] = outcome
        if not self.watch:
            self.settle()

    def _withdraw(self, outcomes: Future[list[Outcome]]) -> None:
        if outcomes.cancelled():
            self._engine.cancel(self.rows)
