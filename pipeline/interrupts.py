"""SIGINT and SIGTERM end a job cleanly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import JobError


class Interrupted(JobError):
    """The job was told to stop. What was committed stays; the same command resumes it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM raises Interrupted, and later ones are ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A second signal must not break off the clean-up that the first began.
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(
        f"stopped by {signal.Signals(number).name} (process {os.getpid()}); "
        "what is committed stays: the same command resumes the job"
    )
