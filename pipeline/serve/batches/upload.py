"""A file that a client sends as a multipart form."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pipeline.errors import RowError
from pipeline.serve.batches.expiry import kept_seconds
from pipeline.serve.errors import ApiError

MOST_BYTES = 200_000_000
SILENCE = 60.0
"""Seconds that a client may stay silent while it sends."""
_FRAME = 100_000
"""Bytes of a form around its file."""
_FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
_NAME = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """keep: seconds until the file expires; None for ever."""

    filename: str
    content: UploadFile
    keep: int | None

    def write(self, file: BinaryIO) -> None:
        self.content.file.seek(0)
        shutil.copyfileobj(self.content.file, file, 1 << 20)


@asynccontextmanager
async def uploaded(request: Request, most: int = MOST_BYTES) -> AsyncGenerator[Upload]:
    """The form of a request, as long as it is open. most: bytes of a file.

    Raises ApiError (413) for a larger one, (408) for one that doesn't come, and RowError for a form that
    isn't one, with the field at fault."""
    form = await _form(request, most)
    try:
        yield _read(form, most)
    finally:
        await form.close()


async def _form(request: Request, most: int) -> FormData:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RowError("invalid_request", "a file must be sent as multipart/form-data", "file")
    try:
        return await MultiPartParser(
            request.headers, _limited(request, most), max_files=1, max_fields=len(_FIELDS)
        ).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RowError("invalid_request", f"the form can't be read: {error}", "file") from None


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes]:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most + _FRAME:
        raise _too_large(most)
    got, parts = 0, request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENCE):
                part = await anext(parts, None)
        except TimeoutError:
            raise ApiError(408, f"nothing of the file came for {SILENCE:g} seconds") from None
        if part is None:
            return
        got += len(part)
        if got > most + _FRAME:
            raise _too_large(most)
        yield part


def _read(form: FormData, most: int) -> Upload:
    if unknown := next((name for name in form if name not in _FIELDS), None):
        reason = f"{unknown} is not supported; supported: {', '.join(_FIELDS)}"
        raise RowError("unsupported_parameter", reason, unknown)
    content, purpose = form.get("file"), form.get("purpose")
    if not isinstance(content, UploadFile):
        raise RowError("invalid_request", "the form has no file", "file")
    if purpose != "batch":
        raise RowError("invalid_request", f"purpose must be batch, not {str(purpose)[:60]!r}", "purpose")
    if content.size is not None and content.size > most:
        raise _too_large(most)
    names = {name[len("expires_after[") : -1]: form[name] for name in _FIELDS[2:] if name in form}
    return Upload((content.filename or "file")[:_NAME], content, kept_seconds(names or None, "expires_after"))


def _too_large(most: int) -> ApiError:
    reason = f"the file is larger than {most / 1e6:g} MB, the most that is taken"
    return ApiError(413, reason, code="request_too_large", headers={"connection": "close"})
