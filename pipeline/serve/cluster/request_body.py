"""A request's body, read before Serve's proxy reads it, and as often as it is needed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from pipeline.serve.connection import BODY_SECONDS
from pipeline.serve.errors import ApiError

MOST = 1 << 20
"""Bytes. Larger bodies are passed on as they come: nobody looks at them, and they can't be sent twice."""


@dataclass
class Ahead:
    """body: what was read. whole: whether that is all. gone: whether the client has left since."""

    receive: Receive
    body: bytes = b""
    whole: bool = False
    gone: bool = False

    def replayed(self) -> Receive:
        """A `receive` that begins with what was read."""
        first: list[Message] = [
            {"type": "http.request", "body": self.body, "more_body": not self.whole},
        ]

        async def receive() -> Message:
            message = first.pop() if first else await self.receive()
            self.gone = self.gone or message["type"] == "http.disconnect"
            return message

        return receive


async def read_ahead(headers: Headers, receive: Receive) -> Ahead:
    """Reads a body of up to MOST bytes. Raises ApiError (408) where it doesn't come."""
    ahead = Ahead(receive)
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MOST:
        return ahead
    try:
        async with asyncio.timeout(BODY_SECONDS):
            await _read(ahead)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_SECONDS:g} seconds") from None
    return ahead


async def _read(ahead: Ahead) -> None:
    body = bytearray()
    while not ahead.whole and not ahead.gone and len(body) <= MOST:
        message = await ahead.receive()
        body += message.get("body", b"")
        ahead.gone = message["type"] == "http.disconnect"
        ahead.whole = not ahead.gone and not message.get("more_body", False)
    ahead.body = bytes(body)
