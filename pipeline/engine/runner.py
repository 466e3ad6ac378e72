"""The engine on the model's thread: callers hand in sequences, and wait while others prepare theirs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from pipeline.engine.engine import Engine
from pipeline.engine.model_thread import ModelThread
from pipeline.engine.sequence import Outcome
from pipeline.engine.submission import NewSequence, Submission, Watch
from pipeline.errors import WorkerError


class Runner:
    """Steps an engine while it has rows. Safe for several threads; they share its batch."""

    def __init__(self, engine: Engine, thread: ModelThread | None = None) -> None:
        """thread: where the engine's model was loaded; a new one for models that don't care. It has no time
        for anything else until the runner is closed."""
        self.engine = engine
        self._wake = threading.Condition()
        self._under_way: dict[Submission, None] = {}
        self._watched: dict[Submission, None] = {}
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = thread or ModelThread()
        self._stopped = self._thread.submit(self._loop)

    @property
    def failure(self) -> WorkerError | None:
        """Why the engine is broken; None while it isn't."""
        return self._broken() if self._failure else None

    def submit(self, sequences: Sequence[NewSequence], watch: Watch | None = None) -> Submission:
        """Begins to compute sequences that are answered together; `Submission` tells of `watch`.

        Raises WorkerError where the engine is broken or closed."""
        submission = Submission(self.engine, sequences, watch)
        self._queue([submission])
        return submission

    def submit_all(self, requests: Sequence[Sequence[NewSequence]]) -> list[Submission]:
        """As `submit`, for requests whose rows queue as one: no other row comes between them."""
        submissions = [Submission(self.engine, sequences) for sequences in requests]
        self._queue(submissions)
        return submissions

    def run(self, sequences: Sequence[NewSequence]) -> list[Outcome]:
        """What became of each sequence, in order. Raises WorkerError when the engine breaks."""
        return self.submit(sequences).outcomes.result()

    def close(self) -> None:
        """Ends the model's thread after the current step. What is under way raises WorkerError."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._stopped.result()
        self._thread.close()

    def _queue(self, submissions: Sequence[Submission]) -> None:
        with self._wake:
            if self._failure or self._closed:
                raise self._broken()
            for submission in submissions:
                self._under_way[submission] = None
                if submission.watch:
                    self._watched[submission] = None
            self.engine.submit([row for submission in submissions for row in submission.rows])
            self._wake.notify_all()
        for submission in submissions:
            submission.outcomes.add_done_callback(partial(self._forget, submission))
            if not submission.rows:
                submission.settle()

    def _forget(self, submission: Submission, _: object) -> None:
        self._under_way.pop(submission, None)
        self._watched.pop(submission, None)

    def _loop(self) -> None:
        try:
            while self._await_rows():
                self.engine.step()
                for submission in list(self._watched):
                    submission.look()
        except BaseException as failure:
            # Whatever it was, the engine's state can't be trusted any more: callers are told.
            self._failure = failure
        with self._wake:
            left = list(self._under_way)
            self._closed = True
        for submission in left:
            submission.fail(self._broken())

    def _await_rows(self) -> bool:
        if not self.engine.busy:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self.engine.busy)
        return not self._closed

    def _broken(self) -> WorkerError:
        error = WorkerError(f"the engine stopped: {self._failure or 'closed'}")
        error.__cause__ = self._failure
        return error
