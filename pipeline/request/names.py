"""Which name a row's custom_id or id gives it."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from pipeline.errors import RowError
from pipeline.request.json_values import plain, read_json, short
from pipeline.request.row_values import JsonText, WrittenNumber


def row_name(value: Any, column: str) -> str | None:
    """The name that a value means; None for null and for an empty text, which name nothing.

    A text is the name itself. A whole number is its digits, whatever its type: 3, 3.0 and "3" are one name.
    Any other number is the name as it was written, 19.90.
    Raises RowError for what can't be a name: a truth value, a list, a number that isn't finite ...
    """
    if type(value) is str and value.isascii():
        return value or None
    if isinstance(value, JsonText):
        value = read_json(value, column, as_written=True)
    if value is None or value in ("", b""):
        return None
    if isinstance(value, str | bytes):
        return str(plain(value, column))
    if isinstance(value, float) and math.isfinite(value):
        return _digits(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, date | time | UUID):
        return str(value)
    raise RowError("invalid_request", f"{column} must be a string or a number, not {short(value)}", column)


def _digits(value: float) -> str:
    if isinstance(value, WrittenNumber):
        exact = Decimal(value.digits)
        return str(int(exact)) if exact == int(exact) else value.digits
    return str(int(value)) if value == int(value) else str(value)
