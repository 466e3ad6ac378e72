"""Why a request is refused: by the field at fault, its path, and what is allowed there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.errors import RowError
from pipeline.request.fields import Fields
from pipeline.request.json_values import short

Loc = tuple[int | str, ...]


def row_error(model: type[Fields], error: ErrorDetails, renamed: Mapping[str, str]) -> RowError:
    """What pydantic found, as the row's error. renamed: a field's name, and the one that the row used."""
    context = error.get("ctx", {}) if error["type"] == "wrong" else {}
    loc = tuple(renamed.get(str(part), part) if i == 0 else part for i, part in enumerate(error["loc"]))
    param = _path(loc) + context.get("at", "")
    if error["type"] == "missing":
        return RowError("invalid_request", f"{param} is required", param)
    holder, field = _place(model, error["loc"])
    if error["type"] == "extra_forbidden":
        supported = ", ".join(info.alias or name for name, info in holder.model_fields.items())
        return RowError("unsupported_parameter", f"{param} is not supported; supported: {supported}", param)
    allowed = (field and field.description) or holder.shape
    reason = context.get("reason") or f"must be {allowed}, not {short(error['input'])}"
    return RowError(context.get("code", "invalid_request"), f"{param} {reason}", param)


def _path(loc: Loc) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return path.removeprefix(".")


def _place(model: type[Fields], loc: Loc) -> tuple[type[Fields], FieldInfo | None]:
    """The object in which `loc` ends and its field there; no field where the object itself is at fault."""
    field = None
    for part in loc:
        inner = next(_objects(field.annotation), None) if field else model
        if isinstance(part, int):
            model, field = (inner or model), None
            continue
        if inner:
            model = inner
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
    return model, field


def _objects(annotation: Any) -> Iterator[type[Fields]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation  # type: ignore[misc]
    for part in get_args(annotation):
        yield from _objects(part)
