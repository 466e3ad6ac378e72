"""From a client's request to its answer: what the three endpoints have in common."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from fastapi import Request
from starlette.responses import Response

from pipeline.answer.answer import Answer, Embedded, Generated
from pipeline.answer.openai_body import body_of
from pipeline.config import Endpoint
from pipeline.serve.chunks import chunks_for
from pipeline.serve.connection import read_body, while_connected
from pipeline.serve.door import Door
from pipeline.serve.errors import api_error
from pipeline.serve.exchange import Exchange
from pipeline.serve.sse import DONE, PING, EventStream, compact, event
from pipeline.serve.timings import timings
from pipeline.serve.visit import visit_of


async def answered(request: Request, endpoint: Endpoint) -> Response:
    """The answer to a request to `endpoint`, whole or as a stream. Raises RowError and ApiError, all before
    anything is sent, and ClientDisconnect."""
    door: Door = request.app.state.door
    visit = visit_of(request.scope)
    body = await read_body(request, int(door.config.megabytes * 1e6))
    exchange = await while_connected(request.receive, door.begin(endpoint, body, visit.owner))
    visit.exchange = exchange
    try:
        if exchange.asked.stream:
            # Until something is there, a failure still has its status.
            await while_connected(request.receive, exchange.first(door.config.ping))
            return EventStream(_events(exchange, door.config.ping), lambda: door.end(exchange))
        answer = await while_connected(request.receive, exchange.answer())
    except BaseException:
        door.end(exchange)
        raise
    door.end(exchange)
    return Response(await _text(exchange, answer), media_type="application/json")


async def _events(exchange: Exchange, silence: float) -> AsyncIterator[bytes]:
    """An error in mid-stream is an event like others: clients raise it."""
    chunks = chunks_for(exchange.asked, exchange.head)
    try:
        yield _written_all(chunks.first())
        async with aclosing(exchange.deltas(silence)) as told:  # type: ignore[type-var]
            async for deltas in told:
                added = (chunk for delta in deltas for chunk in chunks.of(delta))
                yield _written_all(added) if deltas else PING
        answer = exchange.result()
        assert isinstance(answer, Generated)
        yield _written_all(chunks.last(answer))
    except Exception as failure:
        yield event(api_error(failure).body)
    yield DONE


def _written_all(chunks: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(map(event, chunks))


async def _text(exchange: Exchange, answer: Answer) -> str:
    if isinstance(answer, Embedded):  # Many numbers take a while to write.
        return await asyncio.to_thread(_written, exchange, answer)
    return _written(exchange, answer)


def _written(exchange: Exchange, answer: Answer) -> str:
    head, asked = exchange.head, exchange.asked
    body = body_of(
        asked.request,
        answer,
        id=head.id,
        created=head.created,
        model=head.model,
        fingerprint=head.fingerprint,
    )
    if asked.timings and isinstance(answer, Generated):
        body["timings"] = timings(answer)
    return compact(_encoded(body, answer) if asked.encoded else body)


def _encoded(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """With its vectors as base64 of little-endian float32."""
    assert isinstance(answer, Embedded)
    for found, vector in zip(body["data"], answer.vectors, strict=True):
        found["embedding"] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return body
