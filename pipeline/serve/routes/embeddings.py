"""`POST /v1/embeddings`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.serve.answering import answered
from pipeline.serve.openai import OpenAI
from pipeline.serve.schema import operation

router = APIRouter()


@router.post("/embeddings", openapi_extra=operation("/v1/embeddings"))
async def embeddings(request: Request) -> Response:
    return await answered(request, OpenAI("/v1/embeddings"))
