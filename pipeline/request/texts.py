"""What a row of texts says, as a line of CSV has it, where a request's fields have types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RowError
from pipeline.request.json_values import read_json

AS_THEY_STAND = frozenset(
    "custom_id id model prompt input guided_regex grammar user".split()
    + "reasoning_effort encoding_format method url".split()
)
"""Fields that are texts: "007" and "true" stay what they are."""


def said_by(record: Mapping[str, str]) -> dict[str, Any]:
    """The row's fields: empty ones are absent, and where a field isn't a text, JSON is what it says.

    A text that is no JSON stays: the field says what it needs. stop is a text or a list of them.
    """
    return {name: _said(name, value) for name, value in record.items() if value}


def _said(name: str, text: str) -> Any:
    if name in AS_THEY_STAND or (name == "stop" and not text.startswith("[")):
        return text
    try:
        return read_json(text, None)
    except RowError:
        return text
