"""`/v1/batches`: many requests in a file, answered in the gaps that others leave."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from pipeline.serve.asked import json_object
from pipeline.serve.batches.batch import Batch
from pipeline.serve.batches.ids import BATCH
from pipeline.serve.batches.new_batch import read_new_batch
from pipeline.serve.batches.office import Office
from pipeline.serve.connection import read_body
from pipeline.serve.errors import ApiError
from pipeline.serve.page_query import page_query
from pipeline.serve.routes.files import files_router, no_such_file
from pipeline.serve.visit import visit_of

_MOST, _DEFAULT = 100, 20
_BODY_BYTES = 1_000_000
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["input_file_id", "endpoint", "completion_window"],
                    "properties": {
                        "input_file_id": {"type": "string"},
                        "endpoint": {"type": "string"},
                        "completion_window": {"type": "string"},
                        "metadata": {"description": "a mapping of at most 16 pairs of strings"},
                        "output_expires_after": {"description": "anchor: created_at, and seconds"},
                    },
                }
            }
        },
    }
}


def office_routers(office: Office) -> tuple[APIRouter, ...]:
    """Those of files, and those of batches."""
    return files_router(office), batches_router(office)


def batches_router(office: Office) -> APIRouter:
    router = APIRouter()

    @router.post("/batches", openapi_extra=_BODY)
    async def create(request: Request) -> dict[str, Any]:
        owner = visit_of(request.scope).owner
        fields = json_object(await read_body(request, _BODY_BYTES))
        return (await asyncio.to_thread(_created, office, owner, fields)).body

    @router.get("/batches")
    def listed(request: Request) -> dict[str, Any]:
        query = page_query(request, BATCH, most=_MOST, default=_DEFAULT)
        owner = visit_of(request.scope).owner
        return office.store.page(owner, limit=query.limit, after=query.after, order=query.order).body

    @router.get("/batches/{id}")
    def retrieve(request: Request, id: str) -> dict[str, Any]:
        return _found(office, visit_of(request.scope).owner, id).body

    @router.post("/batches/{id}/cancel")
    def cancel(request: Request, id: str) -> dict[str, Any]:
        return _cancelled(office, visit_of(request.scope).owner, id).body

    return router


def _created(office: Office, owner: str, fields: dict[str, Any]) -> Batch:
    asked = read_new_batch(fields, owner, office.clock())
    file = office.files(owner).find(asked.input_file_id)
    if file is None:
        raise no_such_file(asked.input_file_id, "input_file_id")
    if file.purpose != "batch":
        reason = f"the file {file.id} has the purpose {file.purpose}, but a batch reads one of purpose batch"
        raise ApiError(400, reason, param="input_file_id")
    try:
        batch = office.store.create(asked)
    except FileNotFoundError:  # It was deleted just now.
        raise no_such_file(asked.input_file_id, "input_file_id") from None
    office.wake()
    return batch


def _cancelled(office: Office, owner: str, id: str) -> Batch:
    """Of a batch that is being cancelled already, nothing changes."""
    batch, place = _found(office, owner, id), office.store.place(owner, id)
    if batch.outcome is None:
        office.store.end(place, "cancelled")
        office.wake()
        batch = _found(office, owner, id)
    if batch.status != "cancelling" and not (batch.outcome == "cancelled" and batch.finished):
        reason = f"a batch that is {batch.status} can't be cancelled"
        raise ApiError(409, reason, headers={"x-should-retry": "false"})
    return batch


def _found(office: Office, owner: str, id: str) -> Batch:
    """Another owner's batch is no more to be seen than one that isn't there."""
    batch = office.store.find(owner, id)
    if batch is None:
        raise ApiError(404, f"No batch found with id '{id[:60]}'", param="id")
    return batch
