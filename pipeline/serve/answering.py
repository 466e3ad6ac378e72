"""From a client's request to its answer: what all endpoints have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

from fastapi import Request
from starlette.responses import Response

from pipeline.answer.answer import Answer, Embedded, Generated
from pipeline.serve.connection import read_body, while_connected
from pipeline.serve.dialect import Dialect, Record
from pipeline.serve.door import Door
from pipeline.serve.errors import api_error
from pipeline.serve.exchange import Exchange
from pipeline.serve.sse import EventStream, compact
from pipeline.serve.visit import visit_of


async def answered(request: Request, dialect: Dialect) -> Response:
    """The answer to a request in `dialect`, whole or as a stream. Raises RowError and ApiError, all before
    anything is sent, and ClientDisconnect."""
    door: Door = request.app.state.door
    visit = visit_of(request.scope)
    body = await read_body(request, int(door.config.megabytes * 1e6))
    asking = door.begin(lambda: dialect.read(body, door.defaults), visit.owner)
    exchange = await while_connected(request.receive, asking)
    visit.exchange = exchange
    try:
        if exchange.asked.stream:
            # Until something is there, a failure still has its status.
            await while_connected(request.receive, exchange.first(door.config.ping))
            return EventStream(_events(dialect, exchange, door.config.ping), lambda: door.end(exchange))
        answer = await while_connected(request.receive, exchange.answer())
    except BaseException:
        door.end(exchange)
        raise
    door.end(exchange)
    return Response(await _text(dialect, exchange, answer), media_type="application/json")


async def _events(dialect: Dialect, exchange: Exchange, silence: float) -> AsyncIterator[bytes]:
    """An error in mid-stream is an event like others: clients raise it."""
    chunks = dialect.chunks(exchange)

    def written(records: Iterator[Record]) -> bytes:
        return b"".join(map(dialect.event, records))

    try:
        yield written(chunks.first())
        async with aclosing(exchange.deltas(silence)) as told:  # type: ignore[type-var]
            async for deltas in told:
                added = (chunk for delta in deltas for chunk in chunks.of(delta))
                yield written(added) if deltas else dialect.ping
        answer = exchange.result()
        assert isinstance(answer, Generated)
        yield written(chunks.last(answer))
    except Exception as failure:
        yield dialect.failure(api_error(failure))
    yield dialect.done


async def _text(dialect: Dialect, exchange: Exchange, answer: Answer) -> str:
    if isinstance(answer, Embedded):  # Many numbers take a while to write.
        return await asyncio.to_thread(lambda: compact(dialect.whole(exchange, answer)))
    return compact(dialect.whole(exchange, answer))
