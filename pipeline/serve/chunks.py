"""The chunks of a stream, as OpenAI writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.answer.answer import Generated
from pipeline.answer.columns import usage_columns
from pipeline.answer.delta import Delta
from pipeline.answer.label_columns import label_columns
from pipeline.answer.openai_body import chunk_choice
from pipeline.request.schema import GenerationFields
from pipeline.serve.asked import Asked
from pipeline.serve.exchange import Head
from pipeline.serve.timings import timings

Record = dict[str, Any]


class _Framed:
    """What chunks of both kinds have in common."""

    object: str

    def __init__(self, asked: Asked, head: Head) -> None:
        assert isinstance(asked.request, GenerationFields)
        self._request = asked.request
        self._usage = asked.usage
        self._timings = asked.timings
        self._head = {
            "id": head.id,
            "object": self.object,
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
        }

    def last(self, answer: Generated) -> Iterator[Record]:
        """Labels that were asked for; counts of tokens, which OpenAI sends in a chunk without choices, and
        llama-server's timings beside them."""
        labels = label_columns(answer.decisions).get("label_logprobs")
        if labels is not None:
            yield self._framed(choices=[], label_logprobs=labels)
        ends = {"timings": timings(answer)} if self._timings else {}
        if self._usage:
            ends["usage"] = usage_columns(answer.usage)
        if ends:
            yield self._head | {"choices": []} | ends

    def _framed(self, **fields: Any) -> Record:
        return self._head | fields | ({"usage": None} if self._usage else {})


class ChatChunks(_Framed):
    """chat.completion.chunk: the role first and once, then what is added, then why it ended."""

    object = "chat.completion.chunk"

    def first(self) -> Iterator[Record]:
        for index in range(self._request.n):
            yield self._choice(index, {"role": "assistant", "content": ""})

    def of(self, delta: Delta) -> Iterator[Record]:
        choice = chunk_choice(self._request, delta)
        if choice["delta"] or choice["logprobs"]:
            yield self._framed(choices=[choice | {"finish_reason": None}])
        if delta.finish_reason:
            yield self._choice(delta.choice, {}, delta.finish_reason)

    def _choice(self, index: int, delta: Record, reason: str | None = None) -> Record:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._framed(choices=[choice])


class TextChunks(_Framed):
    """text_completion, whole ones."""

    object = "text_completion"

    def first(self) -> Iterator[Record]:
        yield from ()

    def of(self, delta: Delta) -> Iterator[Record]:
        yield self._framed(choices=[chunk_choice(self._request, delta)])
