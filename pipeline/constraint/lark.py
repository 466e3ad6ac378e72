"""Expressions of llguidance's Lark."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

COMPACT: dict[str, Any] = {"whitespace_flexible": False, "lenient": False}
"""llguidance's options for JSON: no blanks but one kind, and no key that it doesn't know."""

Literal = Callable[[str], str]
"""A text as an expression of Lark, its control tokens as such."""


def quoted(text: str) -> str:
    """`text` as a string of Lark."""
    # Lark reads no DEL inside a string, which JSON leaves as it is.
    return json.dumps(text).replace("\x7f", "\\u007f")


def json_rule(schema: dict[str, Any]) -> str:
    """The JSON values that a schema describes."""
    return f"%json {json.dumps(schema | {'x-guidance': COMPACT})}"
