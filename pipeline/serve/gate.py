"""What every HTTP request passes on its way in and out: path, key, headers, log."""

from __future__ import annotations

import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.door import Door
from pipeline.serve.errors import ApiError
from pipeline.serve.messages.errors import is_message
from pipeline.serve.refusal import refusal
from pipeline.serve.visit import Visit

FREE = frozenset(("/health", "/v1/health"))
"""Paths that need no key: load balancers have none."""

_log = logging.getLogger("nightherd.serve")


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, door: Door, prefix: str = "") -> None:
        """prefix: of the paths, where a proxy in front does not take it away."""
        self._app = app
        self._door = door
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = Visit()
        path = self._path(scope["path"])
        scope = {**scope, "path": path, "raw_path": path.encode(), "root_path": "", "visit": visit}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = visit.id
                if is_message(path):
                    headers["request-id"] = visit.id
                headers["openai-processing-ms"] = str(visit.milliseconds)
            await send(message)

        try:
            await self._enter(scope, receive, answer, visit)
        except ClientDisconnect:
            pass
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._door.metrics.requested(route, visit.status)
            if path not in FREE:
                _log.info(visit.line(scope["method"], path))

    async def _enter(self, scope: Scope, receive: Receive, send: Send, visit: Visit) -> None:
        keys = self._door.keys
        if keys is not None and scope["path"] not in FREE:
            owner = keys.owner(_key(Headers(scope=scope)))
            if owner is None:
                error = _unknown_key(Headers(scope=scope))
                await refusal(error, scope["path"])(scope, receive, send)
                return
            visit.owner = owner
        await self._app(scope, receive, send)

    def _path(self, path: str) -> str:
        """Without the prefix, doubled slashes, and one at the end."""
        path = re.sub("/{2,}", "/", path)
        if self._prefix and f"{path}/".startswith(f"{self._prefix}/"):
            path = path[len(self._prefix) :]
        return path.rstrip("/") or "/"


def _key(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1").decode(errors="surrogateescape")  # Keys are files' and so UTF-8.


def _unknown_key(headers: Headers) -> ApiError:
    given = "this API key is not known" if _key(headers) else "no API key was given"
    how = "send one as `Authorization: Bearer KEY`"
    return ApiError(401, f"{given}: {how}", code="invalid_api_key", headers={"www-authenticate": "Bearer"})
