"""What the OpenAPI document says of a route: the bodies that it takes and gives."""

from __future__ import annotations

from typing import Any

from pipeline.config import Endpoint
from pipeline.request.fields import Fields
from pipeline.request.schema import CONTENT, OTHER_NAMES, REQUESTS, EmbeddingRequest
from pipeline.serve.answer_schema import ANSWERS, CHUNKS, ERROR

Schema = dict[str, Any]

_STREAM: Schema = {
    "stream": {"type": "boolean", "default": False, "description": "true or false"},
    "stream_options": {
        "type": "object",
        "properties": {"include_usage": {"type": "boolean"}},
        "description": "a mapping with include_usage, where stream is true",
    },
}
_BOUNDS = {"ge": "minimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""Pydantic leaves its own names where it can't tell which type a bound is of."""

_RETRY: Schema = {
    "Retry-After": {"description": "seconds, with 429 and 503", "schema": {"type": "integer"}},
}


def failures() -> dict[int | str, Schema]:
    """What every route may answer instead."""
    content = {"application/json": {"schema": ERROR}}
    return {
        "4XX": {"description": "The request can't be served: what is wrong, and where", "content": content},
        "5XX": {"description": "The service can't answer now", "content": content, "headers": _RETRY},
    }


def answers_json(schema: Schema) -> dict[int | str, Schema]:
    """A route's answer, for FastAPI's `responses`."""
    return {200: {"description": "The answer", "content": {"application/json": {"schema": schema}}}}


def operation(endpoint: Endpoint) -> dict[str, Any]:
    """What `openapi_extra` says of an endpoint that takes requests of rows."""
    content: Schema = {"application/json": {"schema": ANSWERS[endpoint]}}
    if endpoint in CHUNKS:
        content["text/event-stream"] = {"schema": {"type": "string"}, "x-event": CHUNKS[endpoint]}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _body(endpoint)}},
        },
        "responses": {"200": {"description": "The answer", "content": content}},
    }


def body_of(model: type[Fields]) -> dict[str, Any]:
    """What `openapi_extra` says of a route with a body of its own."""
    schema = model.model_json_schema(by_alias=True)
    found = _inlined(schema, schema.get("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": found}}}}


def _body(endpoint: Endpoint) -> Schema:
    """As the request's own model reads it. That a null counts as absent is left out."""
    model = REQUESTS[endpoint]
    schema = model.model_json_schema(by_alias=True)
    found: Schema = _inlined(schema, schema.get("$defs", {}))
    fields = found["properties"]
    for other, name in OTHER_NAMES.items():
        if name in fields:
            fields[other] = fields[name] | {"description": f"another name of {name}"}
    if model is not EmbeddingRequest:
        fields |= _STREAM
    # Some fields are taken without a meaning, and the error names those that aren't.
    found["additionalProperties"] = True
    return found | {"required": [CONTENT[endpoint]]}


def _inlined(value: Any, definitions: Schema) -> Any:
    """Definitions in the place of references to them: those would be looked for in the whole document."""
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    beside = {
        _BOUNDS.get(key, key): _inlined(item, definitions)
        for key, item in value.items()
        if key not in ("$ref", "$defs", "title")
    }
    if "$ref" not in value:
        return beside
    return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions) | beside
