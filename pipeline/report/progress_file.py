"""OUT/_work/progress.json: how far a running job is, for `nightherd status`."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from pipeline.errors import StorageError
from pipeline.files.storage import Storage
from pipeline.output.records import PROGRESS

WRITE_EVERY = 2.0


class ProgressFile:
    """Written beside the work, so that slow storage holds up nobody. It's gone when the job is finished."""

    def __init__(self, output: Storage) -> None:
        self._output = output
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None
        self._written = 0.0
        self._pending: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind:
            self.stop()
        self._thread.shutdown(wait=True)

    def stop(self) -> None:
        """Says that nobody works on the job any more, though it isn't finished."""
        if self._pending:
            self._begin({**self._pending, "stopped": True})

    def write(self, **facts: Any) -> None:
        """Keeps `facts`, with who wrote them and when; at most every WRITE_EVERY seconds."""
        self._pending = facts
        if time.monotonic() - self._written >= WRITE_EVERY and (not self._last or self._last.done()):
            self._begin(facts)

    def _begin(self, facts: dict[str, Any]) -> None:
        self._written = time.monotonic()
        record = {"pid": os.getpid(), "host": socket.gethostname(), "updated": time.time(), **facts}
        self._last = self._thread.submit(self._put, json.dumps(record).encode())

    def _put(self, data: bytes) -> None:
        # A job doesn't fail for want of its progress; commits fail loudly if storage is out of order.
        with suppress(StorageError):
            self._output.replace(PROGRESS, data)
