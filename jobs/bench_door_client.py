"""An HTTP client of many streams at once, cheap enough to share the machine with what it measures."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from bench_tasks import Body

WAIT = 600.0
_EMPTY = (b'"text":""', b'"content":""', b'"content":null', b'"delta":{}', b'"choices":[]')


@dataclass
class Answer:
    """Times are of `time.perf_counter`: began, when the request was sent; each, when a token came."""

    began: float
    ended: float = 0.0
    prompt: int = 0
    tokens: int = 0
    each: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.each[0] - self.began

    @property
    def between(self) -> Iterator[float]:
        return (later - earlier for earlier, later in zip(self.each, self.each[1:], strict=False))


def ask_all(address: str, url: str, bodies: Iterable[Body], clients: int, *, stream: bool) -> list[Answer]:
    """The answers to all bodies: each client asks for the next one when it has its answer."""
    return asyncio.run(_ask_all(address, url, list(bodies), clients, stream))


async def _ask_all(address: str, url: str, bodies: list[Body], clients: int, stream: bool) -> list[Answer]:
    left = iter(bodies)
    answers: list[Answer] = []

    async def client() -> None:
        connection = Connection(address)
        for body in left:
            answers.append(await asyncio.wait_for(connection.ask(url, body, stream=stream), WAIT))
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


class Connection:
    """Kept open from request to request, as the SDKs keep theirs."""

    def __init__(self, address: str) -> None:
        self._host, port = address.rsplit(":", 1)
        self._port = int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, url: str, body: Body, *, stream: bool) -> Answer:
        """Raises SystemExit where the server refuses."""
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        said = json.dumps(body | more).encode()
        head = f"POST {url} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        answer = Answer(time.perf_counter())
        reader, status = await self._send(f"{head}Content-Length: {len(said)}\r\n\r\n".encode() + said)
        headers = await self._headers(reader, status)
        await _read(answer, _lines(reader, headers), stream)
        if headers.get("connection") == "close":
            self.close()
        return answer

    async def _send(self, request: bytes) -> tuple[asyncio.StreamReader, bytes]:
        """The status line, and what comes after it. A server may have closed an idle connection."""
        while True:
            fresh = self._streams is None
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(request)
            try:
                status = await reader.readline()
            except ConnectionError:
                status = b""
            if status or fresh:
                return reader, status
            self.close()

    async def _headers(self, reader: asyncio.StreamReader, status: bytes) -> dict[str, str]:
        headers = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip().lower()
        if b" 200 " not in status:
            said = await reader.readexactly(int(headers.get("content-length", 0)))
            raise SystemExit(f"{self._host}:{self._port} answered {status.decode().strip()}: {said.decode()}")
        return headers

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


async def _read(answer: Answer, lines: AsyncIterator[bytes], stream: bool) -> None:
    usage = None
    async for line in lines:
        if stream and line.startswith(b"data: {") and not any(mark in line for mark in _EMPTY):
            answer.each.append(time.perf_counter())
        if b'"usage":{' in line:
            usage = json.loads(line.removeprefix(b"data: "))["usage"]
    answer.ended = time.perf_counter()
    if usage is None:
        raise SystemExit("an answer came without its usage")
    answer.prompt, answer.tokens = usage["prompt_tokens"], usage["completion_tokens"]


async def _lines(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """Of the body."""
    if "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
        return
    left = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        *whole, left = (left + await reader.readexactly(size)).split(b"\n")
        await reader.readline()
        for line in whole:
            yield line
    await reader.readline()
    yield left
