"""What the OpenAPI document says of Anthropic's routes."""

from __future__ import annotations

from typing import Any

from pipeline.serve.answer_schema import NUMBER, TEXT, WHOLE, Schema, listed, maybe, record

_BLOCK = record({"type": TEXT})
_CONTENT: Schema = {"anyOf": [TEXT, listed(_BLOCK)]}
_TURN = record({"role": {"enum": ["user", "assistant"]}, "content": _CONTENT})
_TOOL = record({"name": TEXT, "input_schema": {"type": "object"}}, description=TEXT)
_ASKED: dict[str, Schema] = {
    "model": TEXT,
    "system": _CONTENT,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": WHOLE,
    "stop_sequences": listed(TEXT),
    "stream": {"type": "boolean"},
    "tools": listed(_TOOL),
    "tool_choice": record({"type": {"enum": ["auto", "any", "tool", "none"]}}, name=TEXT),
    "thinking": record({"type": {"enum": ["enabled", "adaptive", "disabled"]}}),
    "output_config": {"type": "object"},
}
_LIMIT: dict[str, Schema] = {"max_tokens": {"type": "integer", "minimum": 1}}
_USAGE = record(
    {"input_tokens": WHOLE, "output_tokens": WHOLE},
    cache_creation_input_tokens=WHOLE,
    cache_read_input_tokens=WHOLE,
)
MESSAGE = record(
    {
        "id": TEXT,
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "model": TEXT,
        "content": listed(_BLOCK),
        "stop_reason": maybe({"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use"]}),
        "stop_sequence": maybe(TEXT),
        "usage": _USAGE,
    }
)
_ERROR = record({"type": {"const": "error"}, "error": record({"type": TEXT, "message": TEXT})})


def _takes(schema: Schema) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


MESSAGES = _takes(record({"messages": listed(_TURN), **_LIMIT}, **_ASKED))
COUNTED = _takes(record({"messages": listed(_TURN)}, **_LIMIT, **_ASKED))


def failures() -> dict[int | str, Schema]:
    """What the routes may answer instead."""
    content = {"application/json": {"schema": _ERROR}}
    return {
        "4XX": {"description": "The request can't be served: what is wrong, and where", "content": content},
        "5XX": {"description": "The service can't answer now", "content": content},
    }
