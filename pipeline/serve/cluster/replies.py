"""What comes back through Serve's proxy, as the client gets it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from pipeline.serve.errors import ApiError
from pipeline.serve.refusal import last_events

OURS = "openai-processing-ms"
"""A header of every answer of a replica. Serve's own refusals have none."""
_REFUSALS = frozenset((404, 408, 429, 500, 503))


class Reply:
    """A `send` for Serve's proxy. begun: whether the client has got a status. refused: whether Serve itself
    has refused the request; nothing of that is passed on."""

    def __init__(self, send: Send, path: str) -> None:
        """path: that was asked."""
        self._send = send
        self._path = path
        self._events = False
        self._whole = False
        self.begun = False
        self.refused = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = _once(message)
            self.refused = message["status"] in _REFUSALS and OURS not in headers
            self._events = headers.get("content-type", "").startswith("text/event-stream")
            self.begun = not self.refused
        if self.refused:
            return
        self._whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self, error: ApiError) -> None:
        """After the last message: tells of `error` where the answer isn't whole, and raises it where none has
        begun.

        An answer that is no stream can't be mended: the server then cuts the connection."""
        if not self.begun:
            raise error
        if self._events and not self._whole:
            self._whole = True
            await self._send({"type": "http.response.body", "body": last_events(error, self._path)})


@dataclass
class Whole:
    """A `send` that keeps an answer. status: 0 until there is one."""

    messages: list[Message] = field(default_factory=list)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            _once(message)
        self.messages.append(message)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"]) if self.messages else 0

    @property
    def ours(self) -> bool:
        """Whether a replica has given it, whole; Serve itself may have refused."""
        whole = len(self.messages) > 1 and not self.messages[-1].get("more_body", False)
        return whole and OURS in Headers(raw=self.messages[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    def with_body(self, body: bytes) -> Whole:
        start = {**self.messages[0], "headers": list(self.messages[0]["headers"])}
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        return replace(self, messages=[start, {"type": "http.response.body", "body": body}])


def _once(message: Message) -> Headers:
    """The headers of an answer. Serve's proxy adds an x-request-id where the replica has given one."""
    found = Headers(raw=message["headers"])
    if len(names := found.getlist("x-request-id")) > 1:
        MutableHeaders(scope=message)["x-request-id"] = names[0]
    return found
