"""`POST /v1/completions`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.serve.answering import answered
from pipeline.serve.openai import OpenAI
from pipeline.serve.schema import operation

router = APIRouter()


@router.post("/completions", openapi_extra=operation("/v1/completions"))
async def completions(request: Request) -> Response:
    return await answered(request, OpenAI("/v1/completions"))
