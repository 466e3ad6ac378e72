"""Work for a client, as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from pipeline.serve.errors import ApiError

Done = TypeVar("Done")

BODY_SECONDS = 60.0
"""Time that a client has to send its body."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Done]) -> Done:
    """What `work` gives; it is cancelled when the client goes away. Raises ClientDisconnect then.

    receive: of a request whose body was read to its end."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        left = [waiting for waiting in (task, gone) if not waiting.done()]
        for waiting in left:
            waiting.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body. Raises ApiError (413) beyond `limit` bytes, and (408) where it doesn't come."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_SECONDS:g} seconds") from None
    return bytes(body)


def _too_large(limit: int) -> ApiError:
    reason = f"the body is larger than {limit / 1e6:g} MB, the most that is taken"
    # The rest of the body is not read: the connection can't be used again.
    return ApiError(413, reason, code="request_too_large", headers={"connection": "close"})
