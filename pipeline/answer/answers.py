"""Answers become rows: what the engine made of a request, as a record of the output's columns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.answer.answer_columns import Kind, Record, response_schema
from pipeline.answer.label_columns import label_columns
from pipeline.answer.logprobs import LogprobWriter, prompt_text
from pipeline.answer.parsed import Expected
from pipeline.constraint.constraints import constraint_of
from pipeline.engine.model import Vocabulary
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError
from pipeline.failures import Failures, Reason
from pipeline.native.kernels import system_fingerprint
from pipeline.request.rows import Row
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from pipeline.tally import Tally
from pipeline.text.call_ids import nine_letters
from pipeline.text.chat_format import ChatFormats
from pipeline.text.pieces import Pieces
from pipeline.text.reply import Reply
from pipeline.text.template_nature import CallIds


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What an embedding request got: float32 vectors, shape [inputs, dimensions], in the inputs' order."""

    vectors: NDArray[np.float32]
    prompt_tokens: int


class Answers:
    """Makes the output rows of one job."""

    def __init__(
        self,
        model_id: str,
        fingerprint: str,
        kept: pa.Schema,
        kind: Kind = "generate",
        *,
        vocabulary: Vocabulary | None = None,
        formats: ChatFormats | None = None,
        kernels: str = "",
        parsed: Expected | None = None,
    ) -> None:
        """fingerprint: the job's. kept: the input columns to carry along. vocabulary: for rows that ask
        for logprobs. formats: the chat templates, which tell how the model writes reasoning and calls.
        kernels: the id of those that computed the answers. parsed: what the column `parsed` is made by."""
        self._parsed = parsed if kind == "generate" else None
        self.schema = response_schema(kind, kept, self._parsed and self._parsed.column_type)
        self._own = pa.schema(list(self.schema)[: len(self.schema) - len(kept)])
        self._model_id = model_id
        self._fingerprint = fingerprint
        self._system_fingerprint = system_fingerprint(fingerprint, kernels)
        self._vocabulary = vocabulary
        self._logprobs = LogprobWriter(vocabulary) if vocabulary else None
        self._pieces = Pieces(vocabulary) if vocabulary else None
        self._formats = formats or ChatFormats(None)

    def chat(
        self,
        row: Row,
        choices: Sequence[Generation],
        attempts: int,
        *,
        reused: bool = False,
    ) -> Record:
        """choices: one for each of the `n` that were asked for.
        reused: the row was answered by an earlier equal one, and nothing was computed."""
        request = row.request
        assert isinstance(request, ChatRequest)
        guided = constraint_of(request) is not None
        chat = self._formats.of(request)
        marks = chat.marks(tools=bool(request.offered))
        piece = self._pieces.showing(marks) if self._pieces else None
        replies = [chat.reply(request, generation.text, guided=guided) for generation in choices]
        written = [
            {
                "message": self._message(row, index, reply, chat.call_ids),
                "finish_reason": _finish_reason(generation, bool(reply.calls)),
                "logprobs": self._logprobs and self._logprobs.chat(generation, piece),
            }
            for index, (reply, generation) in enumerate(zip(replies, choices, strict=True))
        ]
        own = {"id": f"chatcmpl-{self._digest(row.custom_id)}", "object": "chat.completion"}
        own |= _generated(written, choices, guided=guided, reused=reused)
        typed = self._typed(request, replies, choices)
        return self._head(row.custom_id, attempts) | own | typed | {"text": replies[0].content}

    def completion(
        self,
        row: Row,
        choices: Sequence[Generation],
        attempts: int,
        *,
        reused: bool = False,
    ) -> Record:
        """As `chat`."""
        request = row.request
        assert isinstance(request, CompletionRequest)
        echo = prompt_text(request.prompt, self._vocabulary) if request.echo else None
        written = [
            {
                "text": (echo or "") + generation.text,
                "finish_reason": _finish_reason(generation),
                "logprobs": self._logprobs and self._logprobs.completion(generation, echo),
            }
            for generation in choices
        ]
        own = {"id": f"cmpl-{self._digest(row.custom_id)}", "object": "text_completion"}
        own |= _generated(written, choices, guided=constraint_of(request) is not None, reused=reused)
        typed = self._typed(request, [Reply(generation.text) for generation in choices], choices)
        return self._head(row.custom_id, attempts) | own | typed | {"text": written[0]["text"]}

    def embedding(self, row: Row, embeddings: Embeddings, attempts: int) -> Record:
        single = isinstance(row.request, EmbeddingRequest) and row.request.single
        data = [{"index": i, "embedding": vector} for i, vector in enumerate(embeddings.vectors)]
        return self._head(row.custom_id, attempts) | {
            "object": "list",
            "embedding": embeddings.vectors[0],
            "data": None if single else data,
            "usage": _usage(embeddings.prompt_tokens),
        }

    def error(self, custom_id: str, error: RowError, attempts: int) -> Record:
        """A row that got no answer; it has no usage."""
        details = {"code": error.code, "message": error.message, "type": error.type, "param": error.param}
        return self._head(custom_id, attempts) | {"status_code": error.status_code, "error": details}

    def table(self, rows: Sequence[Record], kept: pa.Table) -> pa.Table:
        """The rows as a table of `schema`. kept: the rows' input columns to carry along, in order."""
        own = pa.Table.from_pylist(rows, schema=self._own)
        columns = [kept.column(name) for name in self.schema.names[len(self._own) :]]
        return pa.Table.from_arrays([*own.columns, *columns], schema=self.schema)

    def _head(self, custom_id: str, attempts: int) -> Record:
        return {
            "custom_id": custom_id,
            "status_code": 200,
            "created": int(time.time()),
            "model": self._model_id,
            "system_fingerprint": self._system_fingerprint,
            "attempts": attempts,
        }

    def _typed(self, request: Request, replies: Sequence[Reply], choices: Sequence[Generation]) -> Record:
        if self._parsed is None:
            return {}
        # A number or a word that was cut off may look like a whole one.
        whole = [choice.complete and choice.finish_reason != "length" for choice in choices]
        return {"parsed": self._parsed.parse(request, replies, whole)}

    def _message(self, row: Row, index: int, reply: Reply, ids: CallIds) -> Record:
        calls = [
            {
                "id": self._call_id(ids, call.name, row.custom_id, index, place),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for place, call in enumerate(reply.calls)
        ]
        return {
            "role": "assistant",
            "content": reply.content,
            "reasoning_content": reply.reasoning,
            "tool_calls": calls or None,
        }

    def _call_id(self, form: CallIds, name: str, *place: object) -> str:
        """In the form in which the model's template takes it back."""
        if form == "named":
            return f"functions.{name}:{place[-1]}"
        digest = self._digest(*place)
        return nine_letters(digest) if form == "nine" else f"call_{digest}"

    def _digest(self, *place: object) -> str:
        """The same job gives the same row the same id, however often it is tried."""
        name = "\0".join(map(str, (self._fingerprint, *place)))
        return blake2b(name.encode(), digest_size=12).hexdigest()


def tally(rows: Sequence[Mapping[str, Any]], seconds: float, shard: str = "") -> Tally:
    """What the output rows cost together. seconds: how long they took. shard: which the rows are of."""
    errors = Failures.of(
        Reason(error["code"], error["message"], 1, shard, row["custom_id"])
        for row in rows
        if (error := row.get("error")) is not None
    )
    return sum((_row_tally(row) for row in rows), Tally(seconds=seconds, errors=errors))


def _row_tally(row: Mapping[str, Any]) -> Tally:
    usage = row.get("usage") or _usage(0)
    failed = row.get("error") is not None
    return Tally(
        rows=1,
        succeeded=int(not failed),
        failed=int(failed),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        attempts=row["attempts"],
        reused=int(row.get("reused", False)),
    )


def _generated(
    written: Sequence[Record],
    choices: Sequence[Generation],
    *,
    guided: bool,
    reused: bool,
) -> Record:
    """The columns that chats and completions have in common."""
    first = choices[0]
    cached = first.prompt_tokens if reused else first.cached_tokens
    tokens = sum(generation.completion_tokens for generation in choices)
    return {
        "choices": [{"index": index, **choice} for index, choice in enumerate(written)],
        "finish_reason": written[0]["finish_reason"],
        "complete": all(generation.complete for generation in choices) if guided else None,
        **label_columns(first.decisions),
        "usage": _usage(first.prompt_tokens, tokens, cached),
        "seconds": None if reused else max(generation.seconds for generation in choices),
        "reused": reused,
    }


def _usage(prompt_tokens: int, completion_tokens: int = 0, cached_tokens: int = 0) -> Record:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def _finish_reason(generation: Generation, calls: bool = False) -> str:
    """What was cut off never passes for whole, whatever could be read of it."""
    if not generation.complete or generation.finish_reason == "length":
        return "length"
    return "tool_calls" if calls else generation.finish_reason
