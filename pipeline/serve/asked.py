"""What a client asks for: its JSON body, read and checked by the code that reads rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.request.defaults import with_defaults
from pipeline.request.json_values import read_json, short
from pipeline.request.schema import EmbeddingRequest, Request
from pipeline.serve.prompts import requests_of


@dataclass(frozen=True, slots=True)
class Asked:
    """requests: more than one for a completion's list of prompts, that differ in nothing else.
    stream: whether the answer comes in pieces. usage: whether a stream ends with the counts of tokens.
    timings: whether the answer tells how long it took. encoded: whether vectors come as base64.
    prefix: of the answer's id; "" for OpenAI's."""

    endpoint: Endpoint
    requests: tuple[Request, ...]
    stream: bool = False
    usage: bool = False
    timings: bool = False
    prefix: str = ""

    @property
    def request(self) -> Request:
        return self.requests[0]

    @property
    def encoded(self) -> bool:
        return isinstance(self.request, EmbeddingRequest) and self.request.encoding_format == "base64"


def json_object(body: bytes) -> dict[str, Any]:
    """Raises RowError where the body is no JSON object."""
    value = read_json(body, "body")
    if not isinstance(value, dict):
        raise RowError("invalid_request", f"body must be a JSON object, not {short(value)}", "body")
    return value


def read_asked(endpoint: Endpoint, body: Mapping[str, Any], defaults: Mapping[str, Any]) -> Asked:
    """defaults: request fields for what the body doesn't set. Raises RowError, with the field at fault."""
    fields = dict(body)
    stream = _flag(fields.pop("stream", None), "stream")
    usage = _include_usage(fields.pop("stream_options", None), stream=stream)
    timings = _flag(fields.pop("timings_per_token", None), "timings_per_token")
    if stream and endpoint == "/v1/embeddings":
        raise RowError("unsupported_parameter", "stream is not supported for embeddings", "stream")
    requests = requests_of(endpoint, with_defaults(defaults, endpoint, fields))
    return Asked(endpoint, requests, stream, usage, timings)


def _include_usage(options: Any, *, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        reason = f"stream_options must be a mapping, not {short(options)}"
        raise RowError("invalid_request", reason, "stream_options")
    if not stream:
        raise RowError("invalid_request", "stream_options needs stream: true", "stream_options")
    for name in options.keys() - {"include_usage", "include_obfuscation"}:
        param = f"stream_options.{name}"
        raise RowError("unsupported_parameter", f"{param} is not supported; supported: include_usage", param)
    return _flag(options.get("include_usage"), "stream_options.include_usage")


def _flag(value: Any, param: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RowError("invalid_request", f"{param} must be true or false, not {short(value)}", param)
    return value
