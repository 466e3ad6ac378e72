"""docs/job-file.md lists every key of the job file with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.config import JobConfig

PAGE = Path(__file__).parent.parent / "docs" / "job-file.md"


def keys(model: type[BaseModel] = JobConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each key's dotted name and its default."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.default


def shown(default: Any) -> str | None:
    """As the page writes it; None where the page says in words what holds."""
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return f"`{default:g}`"
    return f"`{default}`" if isinstance(default, str) and default else None


def test_every_key_has_its_line_and_no_line_lacks_a_key():
    lines = re.findall(r"(?m)^\| `([a-z_0-9.]+)` \| (.*?) \|", PAGE.read_text())
    assert [name for name, _ in lines] == [name for name, _ in keys()]
    defaults = {name: shown(default) for name, default in keys() if shown(default)}
    assert {name: default for name, default in lines if name in defaults} == defaults
