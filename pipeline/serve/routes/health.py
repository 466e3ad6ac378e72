"""`GET /health`: whether requests are answered now."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from pipeline.serve.answer_schema import HEALTH
from pipeline.serve.door import Door
from pipeline.serve.errors import ApiError
from pipeline.serve.schema import answers_json

router = APIRouter()


@router.get("/health", responses=answers_json(HEALTH))
async def health(request: Request) -> JSONResponse:
    door: Door = request.app.state.door
    try:
        model = door.service.about.model
    except ApiError as shut:
        told = {"status": door.now, "reason": door.reason}
        return JSONResponse(told | shut.body, shut.status, shut.headers)
    return JSONResponse({"status": "ok", "model": model})
