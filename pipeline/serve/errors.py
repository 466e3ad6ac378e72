"""Errors as OpenAI's API writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from pipeline.errors import NightherdError, RowError, StorageError, WorkerError

REQUEST, SERVER = "invalid_request_error", "server_error"


class ApiError(NightherdError):
    """A refusal with its HTTP status.

    type, code, param: as in OpenAI's error body. headers: sent beside it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = REQUEST,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        names = ("message", "type", "param", "code")
        return {"error": {name: getattr(self, name) for name in names}}


def unavailable(reason: str, seconds: int = 5) -> ApiError:
    """The service can't answer now. seconds: when to try again."""
    return ApiError(
        503, reason, type=SERVER, code="service_unavailable", headers={"retry-after": str(seconds)}
    )


def unknown_route(method: str, path: str) -> ApiError:
    return ApiError(404, f"unknown route: {method} {path}", code="unknown_url")


def api_error(failure: BaseException) -> ApiError:
    """Any failure, as clients are told of it. What they can do nothing about is not described."""
    if isinstance(failure, ApiError):
        return failure
    if isinstance(failure, RowError):
        # The same request would take as long again.
        late = {"x-should-retry": "false"} if failure.code == "deadline_exceeded" else None
        return ApiError(
            failure.status_code,
            failure.message,
            type=failure.type,
            code=failure.code,
            param=failure.param,
            headers=late,
        )
    if isinstance(failure, HTTPException):
        return ApiError(failure.status_code, str(failure.detail), headers=failure.headers)
    if isinstance(failure, StorageError):
        return unavailable("the storage of the service's files does not answer: try again", 10)
    if isinstance(failure, WorkerError):
        return unavailable("the engine failed while it answered this request: try again", 10)
    return ApiError(500, "the service failed to answer this request", type=SERVER, code="server_error")
