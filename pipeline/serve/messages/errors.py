"""Errors as Anthropic's API writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.serve.errors import ApiError

_PATH = re.compile(r"(^|/v1)/messages(/|$)")
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def message_error(error: ApiError) -> dict[str, Any]:
    """The body of an answer, and the event of a stream."""
    kind = _TYPES.get(error.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def is_message(path: str) -> bool:
    """Whether Anthropic's clients ask there."""
    return _PATH.search(path) is not None
