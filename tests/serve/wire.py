"""What goes over the wire, as it is."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.serve.live import Live

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
HELLO: Any = [{"role": "user", "content": "hello"}]
GREEDY: dict[str, Any] = {"messages": HELLO, "temperature": 0, "repeat_penalty": 1}


def post(live: Live, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(live.url + path, json=body, headers=headers, timeout=30)


def lines(live: Live, path: str, body: Any) -> list[str]:
    """The lines of a stream that hold anything; it is closed then."""
    with httpx.stream("POST", live.url + path, json=body | {"stream": True}, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [line for line in answer.iter_lines() if line]


def events(live: Live, path: str, body: Any) -> list[Any]:
    """The events of a stream but the last one, [DONE]."""
    *told, last = [line for line in lines(live, path, body) if not line.startswith(":")]
    assert last == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in told]


def choices(told: list[Any], index: int = 0) -> list[Any]:
    """The parts of one choice."""
    return [choice for event in told for choice in event["choices"] if choice["index"] == index]
