"""The engine on the model's thread: callers hand in sequences and wait, while others prepare theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from pipeline.engine.engine import Engine
from pipeline.engine.model_thread import ModelThread
from pipeline.engine.sequence import Outcome, Sequence
from pipeline.errors import RowError, WorkerError

# The sequence is made with the function that must be told what became of it.
NewSequence = Callable[[Callable[[Outcome], None]], Sequence]


class Runner:
    """Steps an engine while it has rows. Several threads may `run` at once; they share its batch."""

    def __init__(self, engine: Engine, thread: ModelThread | None = None) -> None:
        """thread: where the engine's model was loaded; a new one for models that don't care. It has no time
        for anything else until the runner is closed."""
        self.engine = engine
        self._wake = threading.Condition()
        self._submitting = threading.Lock()
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = thread or ModelThread()
        self._stopped = self._thread.submit(self._loop)

    def run(self, sequences: list[NewSequence]) -> list[Outcome]:
        """What became of each sequence, in order. Raises WorkerError when the engine breaks."""
        call = _Call(len(sequences))
        rows = []
        for at, new in enumerate(sequences):
            try:
                rows.append(self.engine.prepare(new(partial(call.set, at))))
            except RowError as error:
                call.set(at, error)
        # A call's rows queue as one, so that an earlier chunk is done before a later one.
        with self._submitting:
            self.engine.submit(rows)
        with self._wake:
            self._wake.notify_all()
        while not call.done.wait(0.5):
            if self._failure or self._closed:
                raise WorkerError(f"the engine stopped: {self._failure or 'closed'}") from self._failure
        return call.outcomes

    def close(self) -> None:
        """Ends the model's thread after the current step."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._stopped.result()
        self._thread.close()

    def _loop(self) -> None:
        try:
            while self._await_rows():
                self.engine.step()
        except BaseException as failure:
            # Whatever it was, the engine's state can't be trusted any more: callers are told.
            self._failure = failure

    def _await_rows(self) -> bool:
        if not self.engine.busy:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self.engine.busy)
        return not self._closed


class _Call:
    """The outcomes of one `run`, and an event for the last of them."""

    def __init__(self, count: int) -> None:
        self._outcomes: list[Outcome | None] = [None] * count
        self._missing = count
        self._lock = threading.Lock()  # refused rows are set by the caller, others by the engine
        self.done = threading.Event()
        if not count:
            self.done.set()

    def set(self, at: int, outcome: Outcome) -> None:
        with self._lock:
            if self._outcomes[at] is not None:
                raise WorkerError(f"row {at} of a call was answered twice")
            self._outcomes[at] = outcome
            self._missing -= 1
            if not self._missing:
                self.done.set()

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for outcome in self._outcomes if outcome is not None]
