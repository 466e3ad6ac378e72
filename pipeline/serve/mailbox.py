"""What the engine's thread tells, brought to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


class Mailbox:
    """One for all requests: however many a step of the engine tells something, the loop is woken once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[asyncio.Queue[Any], Any]] = deque()
        self._woken = False

    def post(self, queue: asyncio.Queue[Any], item: Any) -> None:
        """From any thread; it never waits. After the loop's end nobody listens, and nothing happens."""
        self._posted.append((queue, item))
        if self._woken:
            return
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            self._posted.clear()

    def _deliver(self) -> None:
        # First, so that what is posted from here on wakes the loop again.
        self._woken = False
        while self._posted:
            queue, item = self._posted.popleft()
            queue.put_nowait(item)
