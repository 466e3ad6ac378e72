"""OpenAI's API."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.answer.answer import Answer, Embedded, Generated
from pipeline.answer.openai_body import body_of
from pipeline.config import Endpoint
from pipeline.request.schema import ChatRequest
from pipeline.serve.asked import Asked, json_object, read_asked
from pipeline.serve.chunks import ChatChunks, TextChunks
from pipeline.serve.dialect import Chunks, Record
from pipeline.serve.errors import ApiError
from pipeline.serve.exchange import Exchange
from pipeline.serve.sse import DONE, PING, event
from pipeline.serve.timings import timings


@dataclass(frozen=True, slots=True)
class OpenAI:
    """One of its endpoints, as a `Dialect`."""

    endpoint: Endpoint
    done: bytes = DONE
    ping: bytes = PING

    def read(self, body: bytes, defaults: Mapping[str, Any]) -> Asked:
        return read_asked(self.endpoint, json_object(body), defaults)

    def whole(self, exchange: Exchange, answer: Answer) -> Record:
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
        return _encoded(body, answer) if asked.encoded else body

    def chunks(self, exchange: Exchange) -> Chunks:
        kind = ChatChunks if isinstance(exchange.asked.request, ChatRequest) else TextChunks
        return kind(exchange.asked, exchange.head)

    def event(self, record: Record) -> bytes:
        return event(record)

    def failure(self, error: ApiError) -> bytes:
        return event(error.body)


def _encoded(body: Record, answer: Answer) -> Record:
    """With its vectors as base64 of little-endian float32."""
    assert isinstance(answer, Embedded)
    for found, vector in zip(body["data"], answer.vectors, strict=True):
        found["embedding"] = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return body
