"""`GET /metrics`: counts and times for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from pipeline.serve.door import Door

router = APIRouter()


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus's text format"}},
)
async def metrics(request: Request) -> Response:
    door: Door = request.app.state.door
    return Response(door.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
