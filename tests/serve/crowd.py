"""Clients of all manners at once, over bare sockets."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "ignore_eos": True}
LONG = {**BODY, "max_tokens": 60, "logprobs": True, "top_logprobs": 20}
TINY = 4096
"""Bytes that a slow reader lets the kernel keep for it."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Crowd:
    """answered: how many got a whole answer, by their manner. Those who keep a connection for nothing hold it
    until `leave` is set."""

    def __init__(self, url: str, seed: int) -> None:
        self._place = urlsplit(url).netloc.split(":")
        self._random = random.Random(seed)
        self.answered: Counter[str] = Counter()
        self.leave = asyncio.Event()
        self.manners: dict[str, Callable[[], Awaitable[None]]] = {
            "says nothing": self._says_nothing,
            "half a head": self._half_a_head,
            "half a body": self._half_a_body,
            "leaves in mid-stream": self._leaves_in_mid_stream,
            "leaves before the answer": self._leaves_before_the_answer,
            "resets in mid-stream": self._resets_in_mid_stream,
            "reads slowly": self._reads_slowly,
            "streams": self._streams,
            "waits": self._waits,
        }

    async def come(self, clients: int) -> None:
        """All of them, as many of one manner as of another. Returns when those who want an answer have it,
        and the others have left."""
        manners = [list(self.manners.values())[i % len(self.manners)] for i in range(clients)]
        self._random.shuffle(manners)
        patient = {self._reads_slowly, self._streams, self._waits}
        asks = [asyncio.ensure_future(manner()) for manner in manners if manner in patient]
        others = [asyncio.ensure_future(manner()) for manner in manners if manner not in patient]
        await asyncio.gather(*asks)
        self.leave.set()
        await asyncio.gather(*others)

    async def _says_nothing(self) -> None:
        async with self._connected():
            await self.leave.wait()

    async def _half_a_head(self) -> None:
        async with self._connected() as (_, writer):
            writer.write(self._request(BODY)[: self._random.randrange(1, 40)])
            await self.leave.wait()

    async def _half_a_body(self) -> None:
        async with self._connected() as (_, writer):
            writer.write(self._request(BODY)[: -self._random.randrange(1, 60)])
            await self.leave.wait()

    async def _leaves_in_mid_stream(self) -> None:
        async with self._connected() as (reader, writer):
            writer.write(self._request({**BODY, "stream": True}))
            for _ in range(self._random.randrange(1, 12)):
                await reader.readline()

    async def _resets_in_mid_stream(self) -> None:
        async with self._connected() as (reader, writer):
            writer.write(self._request({**BODY, "stream": True}))
            await reader.readline()
            writer.transport.abort()

    async def _leaves_before_the_answer(self) -> None:
        async with self._connected() as (_, writer):
            writer.write(self._request(LONG))
            await asyncio.sleep(self._random.random())

    async def _reads_slowly(self) -> None:
        async with self._connected(TINY) as (reader, writer):
            writer.write(self._request({**LONG, "stream": True}))
            said = b""
            while part := await reader.read(TINY):
                said += part
                await asyncio.sleep(0.01)
        self._count("reads slowly", said, b"data: [DONE]\n\n")

    async def _streams(self) -> None:
        self._count("streams", await self._whole({**BODY, "stream": True}), b"data: [DONE]\n\n")

    async def _waits(self) -> None:
        self._count("waits", await self._whole(BODY), b'"completion_tokens":12')

    async def _whole(self, body: dict[str, Any]) -> bytes:
        async with self._connected() as (reader, writer):
            writer.write(self._request(body))
            return await reader.read()

    def _count(self, manner: str, said: bytes, wanted: bytes) -> None:
        assert said.startswith(b"HTTP/1.1 200 ") and wanted in said and b'"error"' not in said, said[-500:]
        self.answered[manner] += 1

    @asynccontextmanager
    async def _connected(self, buffer: int | None = None) -> AsyncIterator[Streams]:
        with socket.socket() as own:
            own.setblocking(False)
            if buffer:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            await asyncio.get_running_loop().sock_connect(own, (self._place[0], int(self._place[1])))
            reader, writer = await asyncio.open_connection(sock=own, limit=buffer or 2**16)
            try:
                yield reader, writer
            finally:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    @staticmethod
    def _request(body: dict[str, Any]) -> bytes:
        said = json.dumps(body).encode()
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Connection: close"]
        return "\r\n".join([*lines, f"Content-Length: {len(said)}", "", ""]).encode() + said
