"""A request that is being answered, as the event loop sees it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.answer.answer import Answer, Generated, Usage
from pipeline.answer.delta import Delta
from pipeline.request.schema import CompletionRequest
from pipeline.respond.handle import Handle
from pipeline.respond.service import Service
from pipeline.respond.together import ask_together
from pipeline.serve.asked import Asked
from pipeline.serve.errors import ApiError
from pipeline.serve.mailbox import Mailbox
from pipeline.serve.metrics import Metrics

_PREFIX: Mapping[str, str] = {"/v1/chat/completions": "chatcmpl-", "/v1/completions": "cmpl-"}
Deltas = Sequence[Delta]


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer's body and all of its chunks say alike. created: seconds since 1970."""

    id: str
    created: int
    model: str
    fingerprint: str


class Exchange:
    """One request: from its admission to its answer, or to the client's end."""

    asked: Asked
    head: Head
    usage: Usage | None = None
    """Once the answer is there."""

    def __init__(self, mailbox: Mailbox, metrics: Metrics, owner: str) -> None:
        self._mailbox = mailbox
        self._metrics = metrics
        self._owner = owner
        self._told: asyncio.Queue[Deltas | ApiError | None] = asyncio.Queue()
        self._handle: Handle[Answer] | None = None
        self._started = time.monotonic()
        self._latest: float | None = None
        self._ahead: Deltas = ()

    def begin(self, service: Service, asked: Asked) -> None:
        """Hands the request to the service. From any thread. Raises RowError and WorkerError as it does."""
        name = uuid.uuid4().hex[:24]
        about = service.about
        self.asked = asked
        self.head = Head(
            (asked.prefix or _PREFIX.get(asked.endpoint, "")) + name,
            int(time.time()),
            about.model,
            about.fingerprint,
        )
        listen = (lambda deltas: self._mailbox.post(self._told, deltas)) if asked.stream else None
        several = [request for request in asked.requests if isinstance(request, CompletionRequest)]
        if len(several) > 1:
            self._handle = ask_together(service, several, name, listen=listen)
        else:
            self._handle = service.ask(asked.request, name, listen=listen)
        self._handle.result.add_done_callback(lambda _: self._mailbox.post(self._told, None))

    @property
    def prompt_tokens(self) -> int:
        """Once it has begun."""
        assert self._handle is not None
        return self._handle.prompt_tokens

    async def answer(self) -> Answer:
        """The whole answer. Raises RowError, WorkerError, or the error of `fail`."""
        async for _ in self.deltas():
            pass
        return self.result()

    async def deltas(self, silence: float | None = None) -> AsyncIterator[Deltas]:
        """What comes, to the end; nothing, but a sign of life, after `silence` seconds without any."""
        if self._ahead:
            yield self._ahead
        while (told := await self._next(silence)) is not None:
            yield told

    async def first(self, silence: float) -> None:
        """Returns when something was told, or after `silence` seconds. Raises what the answer raises if that
        is known by then."""
        told = await self._next(silence)
        if told is None:
            self.result()
            self._told.put_nowait(None)
        else:
            self._ahead = told

    def result(self) -> Answer:
        """After the end of `deltas`."""
        assert self._handle is not None
        answer = self._handle.result.result()
        if self.usage is None:
            self._count(answer)
        return answer

    def fail(self, error: ApiError) -> None:
        """Ends it with an error that is not its own."""
        self._told.put_nowait(error)

    def close(self) -> None:
        """The engine need not go on."""
        if self._handle is not None:
            self._handle.cancel()

    async def _next(self, silence: float | None) -> Deltas | None:
        if self._told.empty():
            try:
                async with asyncio.timeout(silence):
                    told = await self._told.get()
            except TimeoutError:
                return ()
        else:
            told = self._told.get_nowait()
        if isinstance(told, ApiError):
            raise told
        if told:
            self._time()
        return told

    def _count(self, answer: Answer) -> None:
        self.usage = answer.usage
        choices = answer.choices if isinstance(answer, Generated) else ()
        reasons = [choice.finish_reason for choice in choices] or ["stop"]
        seconds = time.monotonic() - self._started
        self._metrics.answered(self._owner, answer.usage, reasons, seconds)

    def _time(self) -> None:
        now = time.monotonic()
        if self._latest is None:
            self._metrics.first_token(now - self._started)
        else:
            self._metrics.next_token(now - self._latest)
        self._latest = now
