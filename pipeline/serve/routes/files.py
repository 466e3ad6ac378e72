"""`/v1/files`: what batches read and leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from pipeline.errors import RowError
from pipeline.serve.batches.ids import FILE, new_id
from pipeline.serve.batches.office import Office
from pipeline.serve.batches.stored_file import PURPOSES, StoredFile
from pipeline.serve.batches.upload import uploaded
from pipeline.serve.errors import ApiError
from pipeline.serve.page_query import page_query
from pipeline.serve.visit import visit_of

_BLOCK = 1 << 20
_MOST = 10_000
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                    },
                }
            }
        },
    }
}

_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "As it was uploaded or written",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def files_router(office: Office) -> APIRouter:
    router = APIRouter()

    @router.post("/files", openapi_extra=_FORM)
    async def upload(request: Request) -> dict[str, Any]:
        files, now = office.files(visit_of(request.scope).owner), office.clock()
        async with uploaded(request, office.most_bytes) as form:
            file = await asyncio.to_thread(
                files.add, new_id(FILE, now), form.filename, "batch", form.write, at=now, keep=form.keep
            )
        return file.body

    @router.get("/files")
    def listed(request: Request) -> dict[str, Any]:
        query = page_query(request, FILE, most=_MOST, default=_MOST, more=("purpose",))
        asked = request.query_params.get("purpose")
        purpose = next((purpose for purpose in PURPOSES if purpose == asked), None)
        if asked is not None and purpose is None:
            raise RowError("invalid_request", f"purpose must be one of {', '.join(PURPOSES)}", "purpose")
        files = office.files(visit_of(request.scope).owner)
        return files.page(limit=query.limit, after=query.after, order=query.order, purpose=purpose).body

    @router.get("/files/{id}")
    def retrieve(request: Request, id: str) -> dict[str, Any]:
        return _found(office, request, id).body

    @router.get("/files/{id}/content", response_class=StreamingResponse, responses=_CONTENT)
    def content(request: Request, id: str) -> Response:
        file = _found(office, request, id)
        try:
            opened = office.files(visit_of(request.scope).owner).open(id)
        except FileNotFoundError:
            raise no_such_file(id) from None
        headers = {
            "content-length": str(file.bytes),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
        }
        return StreamingResponse(_blocks(opened), media_type="application/octet-stream", headers=headers)

    @router.delete("/files/{id}")
    def delete(request: Request, id: str) -> dict[str, Any]:
        _found(office, request, id)
        office.files(visit_of(request.scope).owner).remove(id)
        return {"id": id, "object": "file", "deleted": True}

    return router


def no_such_file(id: str, param: str = "id") -> ApiError:
    return ApiError(404, f"No such File object: {id[:60]}", param=param)


def _found(office: Office, request: Request, id: str) -> StoredFile:
    """Another owner's file is no more to be seen than one that isn't there."""
    file = office.files(visit_of(request.scope).owner).find(id)
    if file is None:
        raise no_such_file(id)
    return file


def _blocks(file: pa.NativeFile) -> Iterator[bytes]:
    with file:
        while block := file.read(_BLOCK):
            yield block
