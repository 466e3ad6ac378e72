"""`POST /v1/messages` and `/v1/messages/count_tokens`, Anthropic's API."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from pipeline.request.schema import ChatRequest
from pipeline.serve.answer_schema import WHOLE, record
from pipeline.serve.answering import answered
from pipeline.serve.connection import read_body
from pipeline.serve.door import Door
from pipeline.serve.messages.dialect import Messages
from pipeline.serve.messages.reading import read_message
from pipeline.serve.messages.schema import COUNTED, MESSAGE, MESSAGES, failures
from pipeline.serve.schema import answers_json

router = APIRouter()


@router.post("/messages", openapi_extra=MESSAGES, responses=failures() | answers_json(MESSAGE))
async def messages(request: Request) -> Response:
    return await answered(request, Messages())


@router.post(
    "/messages/count_tokens",
    openapi_extra=COUNTED,
    responses=failures() | answers_json(record({"input_tokens": WHOLE})),
)
async def count_tokens(request: Request) -> dict[str, int]:
    door: Door = request.app.state.door
    body = await read_body(request, int(door.config.megabytes * 1e6))

    def counted() -> int:
        chat = read_message(body, door.defaults, counting=True).request
        assert isinstance(chat, ChatRequest)
        return len(door.service.prompt(chat)[1])

    return {"input_tokens": await asyncio.to_thread(counted)}
