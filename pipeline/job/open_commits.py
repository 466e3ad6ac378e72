"""The commits that a worker has under way, until it makes no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import WorkerError


class OpenCommits:
    """Safe for several threads. closed: no other begins."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self.closed = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """A commit is made inside. Raises WorkerError after `close`."""
        with self._changed:
            if self.closed:
                raise WorkerError("the run has ended: what isn't committed yet stays as a draft")
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Lets no other commit begin, and waits for those under way."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: not self._under_way)
