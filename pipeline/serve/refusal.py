"""An error as the clients of a path read it."""

from __future__ import annotations

from starlette.responses import JSONResponse

from pipeline.serve.errors import ApiError
from pipeline.serve.messages.errors import is_message, message_error
from pipeline.serve.sse import DONE, event


def refusal(error: ApiError, path: str) -> JSONResponse:
    body = message_error(error) if is_message(path) else error.body
    return JSONResponse(body, error.status, error.headers)


def last_events(error: ApiError, path: str) -> bytes:
    """The end of a stream that fails."""
    return event(message_error(error), "error") if is_message(path) else event(error.body) + DONE
