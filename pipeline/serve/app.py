"""The HTTP application. It knows nothing of what runs it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from pipeline import __version__
from pipeline.errors import RowError, StorageError, WorkerError
from pipeline.serve.door import Door
from pipeline.serve.errors import ApiError, api_error, unknown_route
from pipeline.serve.gate import Gate
from pipeline.serve.refusal import refusal
from pipeline.serve.routes import chat, completions, embeddings, health, messages, metrics, models, tokens
from pipeline.serve.schema import failures

ROUTERS = tuple(
    route.router for route in (chat, completions, embeddings, messages, models, tokens, health, metrics)
)
OURS = (RowError, WorkerError, StorageError, ApiError)

LEFT = 499
"""The status in the log of a request whose client went away before its answer, as nginx writes it."""

_log = logging.getLogger("nightherd.serve")


def make_app(door: Door, *, prefix: str = "", routers: Sequence[APIRouter] = ()) -> ASGIApp:
    """prefix: of all paths, where a proxy passes them on as they are. routers: more routes below /v1."""
    app = FastAPI(
        title="nightherd",
        version=__version__,
        root_path=prefix,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=failures(),
    )
    app.state.door = door
    for router in (*ROUTERS, *routers):
        app.include_router(router, prefix="/v1")
        app.include_router(router, include_in_schema=False)
    app.add_exception_handler(ClientDisconnect, _left)
    for failure in (*OURS, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(failure, _told)
    gated = Gate(app, door, prefix)
    if not door.config.origins:
        return gated
    return CORSMiddleware(gated, door.config.origins, allow_methods=["*"], allow_headers=["*"])


async def _left(request: Request, failure: Exception) -> Response:
    """The client went away: nobody reads this."""
    return Response(status_code=LEFT)


async def _told(request: Request, failure: Exception) -> JSONResponse:
    """Every failure as the API of its route writes it."""
    path = request.scope["path"]
    if isinstance(failure, HTTPException) and failure.status_code == 404:
        return refusal(unknown_route(request.method, path), path)
    error = api_error(failure)
    if error.status == 500:
        _log.error("a request failed", exc_info=failure)
    return refusal(error, path)
