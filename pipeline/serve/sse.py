"""Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipeline.serve.connection import while_connected

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def event(data: Any, name: str | None = None) -> bytes:
    """data: anything that JSON can say. name: of the event's type; OpenAI's have none."""
    text = f"data: {compact(data)}\n\n"
    return (f"event: {name}\n{text}" if name else text).encode()


def compact(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


class EventStream(Response):
    """Sends events as they come, until the client goes away."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], closed: Callable[[], None]) -> None:
        """closed: called at the end, whatever it was."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send))
        except ClientDisconnect:
            pass  # It has its status already: there is nothing more to say, and nobody to hear it.
        finally:
            self._closed()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        async with aclosing(self._events) as events:  # type: ignore[type-var]
            async for data in events:
                if data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
