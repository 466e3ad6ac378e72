"""Answers become rows: OpenAI's responses as Arrow columns, and back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.engine.sequence import Generation
from pipeline.errors import ConfigError, RowError
from pipeline.rows import Row
from pipeline.schema import EmbeddingRequest
from pipeline.tally import Tally

Kind = Literal["generate", "embed"]
Record = dict[str, Any]

_FUNCTION = pa.struct({"name": pa.string(), "arguments": pa.string()})
_TOOL_CALL = pa.struct({"id": pa.string(), "type": pa.string(), "function": _FUNCTION})
_MESSAGE = pa.struct(
    {
        "role": pa.string(),
        "content": pa.string(),
        "refusal": pa.string(),
        "tool_calls": pa.list_(_TOOL_CALL),
    }
)
# A choice's logprobs differ between chats and completions: they are JSON.
_CHOICE = pa.struct(
    {
        "index": pa.int32(),
        "message": _MESSAGE,
        "text": pa.string(),
        "finish_reason": pa.string(),
        "logprobs": pa.string(),
    }
)
_USAGE = pa.struct(
    {
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
        "total_tokens": pa.int64(),
        "prompt_tokens_details": pa.struct({"cached_tokens": pa.int64()}),
    }
)
_ERROR = pa.struct({name: pa.string() for name in ("code", "message", "type", "param")})
_VECTOR = pa.list_(pa.float32())
_DATA = pa.list_(pa.struct({"index": pa.int32(), "embedding": _VECTOR}))

_HEAD = {
    "custom_id": pa.string(),
    "status_code": pa.int16(),
    "id": pa.string(),
    "object": pa.string(),
    "created": pa.int64(),
    "model": pa.string(),
    "system_fingerprint": pa.string(),
}
_BODY: Mapping[Kind, Mapping[str, pa.DataType]] = {
    "generate": {"choices": pa.list_(_CHOICE), "text": pa.string(), "finish_reason": pa.string()},
    "embed": {"embedding": _VECTOR, "data": _DATA},
}
_FOOT = {"usage": _USAGE, "error": _ERROR, "attempts": pa.int16()}


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What an embedding request got: float32 vectors, shape [inputs, dimensions], in the inputs' order."""

    vectors: NDArray[np.float32]
    prompt_tokens: int


def response_schema(kind: Kind, kept: pa.Schema) -> pa.Schema:
    """The columns of a response file: the contract's, then those carried along from the input.

    A row that asked with one text has its vector in `embedding`; one that asked with a list has all of
    them in `data`, and the first in `embedding`. Raises ConfigError where a kept name is taken.
    """
    own = pa.schema(_HEAD | dict(_BODY[kind]) | _FOOT)
    names = [*own.names, *kept.names]
    for name in kept.names:
        if names.count(name) > 1:
            reason = "is a column of the output" if name in own.names else "is named twice"
            raise ConfigError(f"output.keep: {name} {reason}")
    return pa.schema([*own, *(field.remove_metadata() for field in kept)])


class Answers:
    """Makes the output rows of one job."""

    def __init__(self, model_id: str, fingerprint: str, kept: pa.Schema, kind: Kind = "generate") -> None:
        """fingerprint: the job's. kept: the input columns to carry along."""
        self.schema = response_schema(kind, kept)
        self._own = pa.schema(list(self.schema)[: len(self.schema) - len(kept)])
        self._model_id = model_id
        self._fingerprint = fingerprint
        self._system_fingerprint = f"fp_{blake2b(fingerprint.encode(), digest_size=5).hexdigest()}"

    def chat(self, row: Row, generation: Generation, attempts: int) -> Record:
        message = {"role": "assistant", "content": generation.text}
        return self._generated(row, "chatcmpl", "chat.completion", {"message": message}, generation, attempts)

    def completion(self, row: Row, generation: Generation, attempts: int) -> Record:
        choice = {"text": generation.text}
        return self._generated(row, "cmpl", "text_completion", choice, generation, attempts)

    def embedding(self, row: Row, embeddings: Embeddings, attempts: int) -> Record:
        single = isinstance(row.request, EmbeddingRequest) and row.request.single
        data = [{"index": i, "embedding": vector} for i, vector in enumerate(embeddings.vectors)]
        return self._head(row.custom_id, attempts) | {
            "object": "list",
            "embedding": embeddings.vectors[0],
            "data": None if single else data,
            "usage": _usage(embeddings.prompt_tokens, 0, 0),
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

    def _generated(
        self, row: Row, prefix: str, kind: str, choice: Record, generation: Generation, attempts: int
    ) -> Record:
        reason = generation.finish_reason
        return self._head(row.custom_id, attempts) | {
            "id": f"{prefix}-{self._digest(row.custom_id)}",
            "object": kind,
            "choices": [{"index": 0, **choice, "finish_reason": reason}],
            "text": generation.text,
            "finish_reason": reason,
            "usage": _usage(generation.prompt_tokens, generation.completion_tokens, generation.cached_tokens),
        }

    def _digest(self, custom_id: str) -> str:
        """The same job gives the same row the same id, however often it is tried."""
        return blake2b(f"{self._fingerprint}\0{custom_id}".encode(), digest_size=12).hexdigest()


def to_openai(record: Mapping[str, Any]) -> Record:
    """An output row as the body of OpenAI's response: ChatCompletion, Completion, CreateEmbeddingResponse,
    or {"error": ...}. Vectors are lists of floats, whatever encoding_format the row asked for."""
    if record.get("error"):
        return {"error": dict(record["error"])}
    if record["object"] == "list":
        return _embedding_response(record)
    names = ("id", "object", "created", "model", "system_fingerprint", "choices", "usage")
    body: Record = _without_nulls({name: record[name] for name in names})
    return body


def tally(rows: Iterable[Mapping[str, Any]], seconds: float) -> Tally:
    """What the output rows cost together. seconds: how long they took."""
    return sum((_row_tally(row) for row in rows), Tally(seconds=seconds))


def _row_tally(row: Mapping[str, Any]) -> Tally:
    usage = row.get("usage") or _usage(0, 0, 0)
    failed = row.get("error") is not None
    return Tally(
        rows=1,
        succeeded=int(not failed),
        failed=int(failed),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        attempts=row["attempts"],
    )


def _usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Record:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def _embedding_response(record: Mapping[str, Any]) -> Record:
    data = record.get("data") or [{"index": 0, "embedding": record["embedding"]}]
    usage = record["usage"]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": d["index"], "embedding": [float(v) for v in d["embedding"]]}
            for d in data
        ],
        "model": record["model"],
        "usage": {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["total_tokens"]},
    }


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
