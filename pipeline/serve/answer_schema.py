"""JSON schemas of what the routes answer, as OpenAI's API describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint

Schema = dict[str, Any]


def record(required: Mapping[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields."""
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def listed(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}

ERROR = record(
    {
        "error": record(
            {"message": TEXT, "type": TEXT, "param": maybe(TEXT), "code": maybe(TEXT)},
        )
    }
)
_USAGE = record({"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE})
_FINISH = {"enum": ["stop", "length", "tool_calls", "content_filter"]}
_CALL = record(
    {"id": TEXT, "type": {"const": "function"}, "function": record({"name": TEXT, "arguments": TEXT})}
)
_CALL_DELTA = record(
    {"index": WHOLE, "function": record({"arguments": TEXT}, name=TEXT)}, id=TEXT, type={"const": "function"}
)
_TOKEN = record({"token": TEXT, "logprob": NUMBER, "bytes": maybe(listed(WHOLE))}, top_logprobs=listed({}))
_CHAT_LOGPROBS = record({"content": maybe(listed(_TOKEN))}, refusal={})
_TEXT_LOGPROBS = record(
    {
        "tokens": listed(TEXT),
        "token_logprobs": listed(NUMBER),
        "top_logprobs": listed({"type": "object"}),
        "text_offset": listed(WHOLE),
    }
)
_MESSAGE = record(
    {"role": {"const": "assistant"}, "content": maybe(TEXT)},
    refusal=maybe(TEXT),
    reasoning_content=TEXT,
    tool_calls=listed(_CALL),
)
_DELTA = record({}, role=TEXT, content=TEXT, reasoning_content=TEXT, tool_calls=listed(_CALL_DELTA))


def _generated(name: str, choice: Schema, **more: Schema) -> Schema:
    head = {"id": TEXT, "object": {"const": name}, "created": WHOLE, "model": TEXT}
    return record(head | {"choices": listed(choice)}, system_fingerprint=TEXT, label_logprobs={}, **more)


def _choice(finish: Schema, **fields: Schema) -> Schema:
    return record({"index": WHOLE, "finish_reason": finish, **fields})


_WHOLE_TEXT = _choice(_FINISH, text=TEXT, logprobs=maybe(_TEXT_LOGPROBS))
_CHUNK_TEXT = _choice(maybe(_FINISH), text=TEXT, logprobs=maybe(_TEXT_LOGPROBS))
_VECTOR = {"anyOf": [listed(NUMBER), {"type": "string", "contentEncoding": "base64"}]}

ANSWERS: Mapping[Endpoint, Schema] = {
    "/v1/chat/completions": _generated(
        "chat.completion", _choice(_FINISH, message=_MESSAGE, logprobs=maybe(_CHAT_LOGPROBS)), usage=_USAGE
    ),
    "/v1/completions": _generated("text_completion", _WHOLE_TEXT, usage=_USAGE),
    "/v1/embeddings": record(
        {
            "object": {"const": "list"},
            "data": listed(
                record({"object": {"const": "embedding"}, "index": WHOLE, "embedding": _VECTOR}),
            ),
            "model": TEXT,
            "usage": record({"prompt_tokens": WHOLE, "total_tokens": WHOLE}),
        }
    ),
}
CHUNKS: Mapping[Endpoint, Schema] = {
    "/v1/chat/completions": _generated(
        "chat.completion.chunk",
        _choice(maybe(_FINISH), delta=_DELTA, logprobs=maybe(_CHAT_LOGPROBS)),
        usage=maybe(_USAGE),
    ),
    "/v1/completions": _generated("text_completion", _CHUNK_TEXT, usage=maybe(_USAGE)),
}
"""An event of a stream."""

MODEL = record(
    {"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT}, meta={"type": "object"}
)
MODELS = record({"object": {"const": "list"}, "data": listed(MODEL)})
HEALTH = record({"status": TEXT}, model=TEXT)
