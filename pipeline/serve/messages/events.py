"""The events of a streamed message: blocks that begin, grow and end, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.answer.answer import Generated, Usage
from pipeline.answer.delta import CallDelta, Delta
from pipeline.serve.dialect import Record
from pipeline.serve.exchange import Head
from pipeline.serve.messages.parts import message, stop_of, usage_of


class MessageEvents:
    """As `Chunks`."""

    def __init__(self, head: Head, usage: Usage) -> None:
        """usage: what is known of it at the beginning."""
        self._head = head
        self._usage = usage
        self._open: str | None = None
        self._index = -1

    def first(self) -> Iterator[Record]:
        yield {"type": "message_start", "message": message(self._head, (), usage_of(self._usage))}
        yield {"type": "ping"}

    def of(self, delta: Delta) -> Iterator[Record]:
        if delta.reasoning:
            yield from self._begin("thinking", {"thinking": "", "signature": ""})
            yield self._grows({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            yield from self._begin("text", {"text": ""})
            yield self._grows({"type": "text_delta", "text": delta.text})
        for call in delta.calls:
            yield from self._call(call)

    def last(self, answer: Generated) -> Iterator[Record]:
        yield from self._end()
        usage = usage_of(answer.usage)
        yield {"type": "message_delta", "delta": stop_of(answer.choices[0]), "usage": usage}
        yield {"type": "message_stop"}

    def _call(self, call: CallDelta) -> Iterator[Record]:
        if call.id is not None:
            yield from self._end()
            yield from self._begin("tool_use", {"id": call.id, "name": call.name, "input": {}})
        if call.arguments:
            yield self._grows({"type": "input_json_delta", "partial_json": call.arguments})

    def _begin(self, kind: str, fields: Record) -> Iterator[Record]:
        """A block of this kind, unless it is open."""
        if self._open == kind:
            return
        yield from self._end()
        self._open = kind
        self._index += 1
        block = {"type": kind, **fields}
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _grows(self, delta: Record) -> Record:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _end(self) -> Iterator[Record]:
        if self._open:
            yield {"type": "content_block_stop", "index": self._index}
        self._open = None
