"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from pipeline.errors import RowError
from pipeline.respond.service import Service
from pipeline.serve.answer_schema import MODEL, MODELS
from pipeline.serve.door import Door
from pipeline.serve.schema import answers_json

router = APIRouter()


@router.get("/models", responses=answers_json(MODELS))
async def models(request: Request) -> dict[str, Any]:
    door: Door = request.app.state.door
    return {"object": "list", "data": [_model(door, door.service)]}


@router.get("/models/{id:path}", responses=answers_json(MODEL))
async def model(request: Request, id: str) -> dict[str, Any]:
    door: Door = request.app.state.door
    service = door.service
    if id not in service.about.names:
        reason = f'the model "{id}" is not served; served: "{service.about.model}"'
        raise RowError("model_not_found", reason, "model")
    return _model(door, service)


def _model(door: Door, service: Service) -> dict[str, Any]:
    return {
        "id": service.about.model,
        "object": "model",
        "created": door.created,
        "owned_by": "nightherd",
        "meta": {
            "kind": service.kind,
            "n_ctx": service.context,
            "n_vocab": service.vocabulary.size,
            **service.about.facts,
        },
    }
