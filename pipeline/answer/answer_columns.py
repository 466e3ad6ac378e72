"""The columns of a response file: OpenAI's responses, typed."""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa

from pipeline.answer.label_columns import LABEL_COLUMNS
from pipeline.answer.vector_forms import VectorForm, vector_columns
from pipeline.errors import ConfigError

Kind = Literal["generate", "embed"]
Record = dict[str, Any]

_BYTES = pa.list_(pa.uint8())
_TOP = {"token": pa.string(), "logprob": pa.float64(), "bytes": _BYTES}
_LIKELIEST = pa.list_(pa.struct(_TOP))
_CONTENT = pa.list_(pa.struct(_TOP | {"top_logprobs": _LIKELIEST}))
_LOGPROBS = pa.struct(
    {
        # Chats.
        "content": _CONTENT,
        "refusal": _CONTENT,
        # Completions. OpenAI's top_logprobs have the tokens as keys: maps, which many tools can't read.
        "tokens": pa.list_(pa.string()),
        "token_logprobs": pa.list_(pa.float64()),
        "top_logprobs": pa.list_(_LIKELIEST),
        "text_offset": pa.list_(pa.int64()),
    }
)
_FUNCTION = pa.struct({"name": pa.string(), "arguments": pa.string()})
_TOOL_CALL = pa.struct({"id": pa.string(), "type": pa.string(), "function": _FUNCTION})
_MESSAGE = pa.struct(
    {
        "role": pa.string(),
        "content": pa.string(),
        "refusal": pa.string(),
        "reasoning_content": pa.string(),
        "tool_calls": pa.list_(_TOOL_CALL),
    }
)
_CHOICE = pa.struct(
    {
        "index": pa.int32(),
        "message": _MESSAGE,
        "text": pa.string(),
        "finish_reason": pa.string(),
        "logprobs": _LOGPROBS,
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

_HEAD = {
    "custom_id": pa.string(),
    "status_code": pa.int16(),
    "id": pa.string(),
    "object": pa.string(),
    "created": pa.int64(),
    "model": pa.string(),
    "system_fingerprint": pa.string(),
}
_GENERATED = {
    "choices": pa.list_(_CHOICE),
    "text": pa.string(),
    "finish_reason": pa.string(),
    "complete": pa.bool_(),
    **LABEL_COLUMNS,
}
_FOOT = {"usage": _USAGE, "error": _ERROR, "seconds": pa.float32(), "attempts": pa.int16()}


def response_schema(
    kind: Kind, kept: pa.Schema, parsed: pa.DataType | None = None, vectors: VectorForm = "float32"
) -> pa.Schema:
    """The columns of a response file: the contract's, then those carried along from the input.

    `complete`: whether every choice is a whole answer by the row's constraint, null for rows without one.
    `parsed`: the answers as values of this type, where the job's rows share a schema (`parsed.py`).
    `seconds`: from the row's slot in the engine to its last token; null for rows that were not computed by
    themselves: embeddings, equal rows, errors.
    `label_logprobs` and those behind it: where the row asked for them (`label_columns.py`).
    A row that asked for embeddings with one text has its vector in `embedding`; one that asked with a list
    has all of them in `data`, and the first in `embedding`. vectors: how they are stored.
    Raises ConfigError where a kept name is taken.
    """
    typed = {} if parsed is None else {"parsed": parsed}
    body = _GENERATED if kind == "generate" else vector_columns(vectors)
    own = pa.schema(_HEAD | body | typed | _FOOT)
    names = [*own.names, *kept.names]
    for name in kept.names:
        if names.count(name) > 1:
            taken = f"is a column of the output: keep it by another name, as in {{{name}: input_{name}}}"
            raise ConfigError(f"output.keep: {name} {taken if name in own.names else 'is named twice'}")
    return pa.schema([*own, *(field.remove_metadata() for field in kept)])
