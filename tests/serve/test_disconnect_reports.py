"""Reports about clients that go away: llama.cpp#11720, #13262, #24496, ik_llama.cpp#1020.

Whatever was asked, and wherever it stands, its place is free after the engine's next step.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serve.live import Live, until
from tests.serve.wire import CHAT, COMPLETION, HELLO, post

LONG: Any = {"max_tokens": 3500, "ignore_eos": True}
KINDS: Any = [
    (CHAT, {"messages": HELLO}),
    (CHAT, {"messages": HELLO, "n": 3}),
    (COMPLETION, {"prompt": ["a", "b"]}),
]


@contextmanager
def asked(live: Live, path: str, body: Any) -> Iterator[socket.socket]:
    """A client that sent its request, and hangs up in the end."""
    place = urlsplit(live.url)
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\n\r\n"
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall(head.encode() + text)
        yield line


def is_served(live: Live) -> None:
    """Others are answered, and nothing of the one that left goes on."""
    until(lambda: live.idle)
    assert post(live, CHAT, {"messages": HELLO, "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), KINDS)
def test_while_it_is_answered(chats, path, body, stream):
    before = chats.engine.counters.completion_tokens
    with asked(chats, path, body | LONG | {"stream": stream}):
        until(lambda: chats.engine.counters.completion_tokens > before + 20)
    is_served(chats)
    assert chats.engine.counters.completion_tokens < before + 3 * 3500


@pytest.mark.parametrize("stream", [False, True])
def test_while_it_waits_for_a_slot(chats, stream):
    with chats.gate:
        first = asked(chats, CHAT, {"messages": HELLO, "n": 4} | LONG)
        with first:
            until(lambda: chats.engine.running)
            with asked(chats, CHAT, {"messages": HELLO, "stream": stream} | LONG):
                until(lambda: chats.engine.waiting)
    is_served(chats)


@pytest.mark.parametrize("stream", [False, True])
def test_while_its_prompt_is_computed(chats, stream):
    prompt = [{"role": "user", "content": "x" * 3000}]
    before, calls = chats.engine.counters.prompt_tokens, chats.engine.counters.steps
    with asked(chats, CHAT, {"messages": prompt, "stream": stream} | LONG | {"max_tokens": 500}):
        until(lambda: chats.engine.counters.steps > calls + 2)
        assert chats.engine.counters.completion_tokens >= 0
        with chats.gate:
            computed = chats.engine.counters.prompt_tokens - before
    is_served(chats)
    assert computed < 3000, "the client left too late for this test"
    assert chats.engine.counters.prompt_tokens - before < 3000 + 64


@pytest.mark.parametrize("part", ["", "POST /v1/chat/completions HT", None])
def test_before_its_request_is_whole(chats, part):
    place = urlsplit(chats.url)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + '{"messages'
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall((head if part is None else part).encode())
    is_served(chats)


def test_many_that_leave_at_once_leave_nothing(chats: Live):
    lines = []
    for at in range(40):
        context = asked(chats, *KINDS[at % 3][:1], KINDS[at % 3][1] | LONG | {"stream": at % 2 == 0})
        lines.append(context)
        context.__enter__()
    until(lambda: len(chats.door.under_way) == 40)
    for context in lines:
        context.__exit__(None, None, None)
    is_served(chats)
