"""SIGINT and SIGTERM end a job cleanly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import JobError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(JobError):
    """The job was told to stop. What was committed stays; the same command resumes it."""


class Stop:
    """Whether a job was told to stop."""

    def __init__(self) -> None:
        self._received: list[int] = []

    @property
    def signals(self) -> int:
        """How many have come."""
        return len(self._received)

    def check(self) -> None:
        """Raises Interrupted if a signal came inside `on_signals`."""
        if self._received:
            raise Interrupted(
                f"stopped by {signal.Signals(self._received[0]).name} (process {os.getpid()}); "
                "what is committed stays: the same command resumes the job"
            )

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Inside, SIGINT and SIGTERM are only noted, for `check`.

        An exception out of a handler would come up in the middle of Ray's own code, which can't take it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            self._received.clear()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)
