"""Anthropic's Messages API, as a dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.answer.answer import Answer, Choice, Generated, Usage
from pipeline.serve.asked import Asked
from pipeline.serve.dialect import Chunks, Record
from pipeline.serve.errors import ApiError
from pipeline.serve.exchange import Exchange
from pipeline.serve.messages.errors import message_error
from pipeline.serve.messages.events import MessageEvents
from pipeline.serve.messages.parts import message, stop_of, usage_of
from pipeline.serve.messages.reading import read_message
from pipeline.serve.sse import event


@dataclass(frozen=True, slots=True)
class Messages:
    """As `Dialect`."""

    done: bytes = b""
    ping: bytes = event({"type": "ping"}, "ping")

    def read(self, body: bytes, defaults: Mapping[str, Any]) -> Asked:
        return read_message(body, defaults)

    def whole(self, exchange: Exchange, answer: Answer) -> Record:
        assert isinstance(answer, Generated)
        choice = answer.choices[0]
        blocks = _blocks(choice)
        return message(exchange.head, blocks, usage_of(answer.usage)) | stop_of(choice)

    def chunks(self, exchange: Exchange) -> Chunks:
        return MessageEvents(exchange.head, Usage(exchange.prompt_tokens))

    def event(self, record: Record) -> bytes:
        return event(record, record["type"])

    def failure(self, error: ApiError) -> bytes:
        return event(message_error(error), "error")


def _blocks(choice: Choice) -> list[Record]:
    blocks: list[Record] = []
    if choice.reasoning:
        blocks.append({"type": "thinking", "thinking": choice.reasoning, "signature": ""})
    if choice.content:
        blocks.append({"type": "text", "text": choice.content})
    calls = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
        for call in choice.calls
    ]
    return blocks + calls
