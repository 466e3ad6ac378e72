"""An error as an HTTP answer, as the clients of its path read it."""

from __future__ import annotations

from starlette.responses import JSONResponse

from pipeline.serve.errors import ApiError
from pipeline.serve.messages.errors import is_message, message_error


def refusal(error: ApiError, path: str) -> JSONResponse:
    body = message_error(error) if is_message(path) else error.body
    return JSONResponse(body, error.status, error.headers)
