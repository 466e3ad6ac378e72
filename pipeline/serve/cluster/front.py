"""ASGI middleware in Serve's proxies: which replica is asked, and what a client hears where one fails.

It knows nothing of Ray. Serve's proxy below it refuses in plain text, and says nothing where a replica dies;
clients of OpenAI's API need an error that they understand."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.cluster.beginnings import beginnings
from pipeline.serve.cluster.gathered import gathered
from pipeline.serve.cluster.replies import Reply, Whole
from pipeline.serve.cluster.request_body import read_ahead
from pipeline.serve.cluster.wish import HEADER, Wish
from pipeline.serve.errors import ApiError, unavailable
from pipeline.serve.refusal import refusal

ASKED = ("/chat/completions", "/completions", "/embeddings", "/messages")
"""The ends of paths whose requests change nothing: they may be tried again."""
TRIES = 2
"""Not more: a request that kills its replica must not go through all of them."""
GATHER_SECONDS = 5.0
"""A replica that says nothing for so long is left out of /metrics."""
_FORBIDDEN = frozenset(
    (HEADER, b"serve-multiplexed-model-id", b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
)
"""Headers by which a client could tell Serve's proxy what to do."""
_GONE = "the replica that was to answer this request is gone: try again"
_CLOSED = "the service is about to stop, or not there yet"

_log = logging.getLogger("nightherd.serve")


class Front:
    """replicas: gives the names of those that there are now."""

    def __init__(self, app: ASGIApp, replicas: Callable[[], Collection[str]]) -> None:
        self._app = app
        self._replicas = replicas

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Serve's own paths begin with /-/.
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        path, method = scope["path"].rstrip("/"), scope["method"]
        try:
            if method == "GET" and path.endswith("/metrics"):
                await self._gather(scope, send)
            elif method == "POST" and path.endswith(ASKED):
                await self._ask(scope, receive, send)
            else:
                await self._end(await self._try(_wishing(scope, Wish()), receive, send))
        except ApiError as error:
            error.headers["x-request-id"] = f"req_{uuid.uuid4().hex}"
            await refusal(error, path)(scope, receive, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Where a replica fails before its answer has begun, another one is asked."""
        ahead = await read_ahead(Headers(scope=scope), receive)
        scope = _wishing(scope, Wish(tuple(beginnings(ahead.body)) if ahead.whole else ()))
        for left in reversed(range(TRIES)):
            if ahead.gone:
                return
            reply = await self._try(scope, ahead.replayed(), send)
            if reply.begun or reply.refused or not (left and ahead.whole):
                break
        if not ahead.gone:
            await self._end(reply)

    async def _try(self, scope: Scope, receive: Receive, send: Send) -> Reply:
        reply = Reply(send, scope["path"])
        try:
            await self._app(scope, receive, reply)
        except Exception:
            _log.exception("a request failed in the proxy")
        return reply

    async def _end(self, reply: Reply) -> None:
        await reply.end(unavailable(_CLOSED if reply.refused else _GONE))

    async def _gather(self, scope: Scope, send: Send) -> None:
        """What each replica counts, in one answer."""
        names = sorted(self._replicas())
        wholes = await asyncio.gather(*(self._whole(_wishing(scope, Wish(replica=name))) for name in names))
        # In the place of one that has gone meanwhile, Serve has asked another one.
        left = set(self._replicas())
        found = {
            name: whole for name, whole in zip(names, wholes, strict=True) if whole.ours and name in left
        }
        if not found:
            raise unavailable(_CLOSED)
        answer = next((whole for whole in found.values() if whole.status != 200), None)
        if answer is None:
            texts = {name: whole.body.decode() for name, whole in found.items()}
            answer = next(iter(found.values())).with_body(gathered(texts))
        for message in answer.messages:
            await send(message)

    async def _whole(self, scope: Scope) -> Whole:
        whole = Whole()
        messages: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await asyncio.Event().wait()  # type: ignore[return-value]

        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self._app(scope, receive, whole)
        return whole


def _wishing(scope: Scope, wish: Wish) -> Scope:
    # Serve takes _ for -.
    headers = [pair for pair in scope["headers"] if pair[0].lower().replace(b"_", b"-") not in _FORBIDDEN]
    if text := wish.written():
        headers.append((HEADER, text.encode()))
    return {**scope, "headers": headers}
