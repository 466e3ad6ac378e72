"""Values from outside: read from JSON, or come out of Arrow, and made plain before anyone trusts them."""

from __future__ import annotations

import json
import math
import reprlib
from decimal import Decimal
from typing import Any

from pipeline.errors import RowError

MAX_DEPTH = 64
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def short(value: Any) -> str:
    """`repr(value)` cut to a length that fits a message, however large the value is."""
    return _SHORT.repr(value)


def read_json(text: str | bytes, param: str | None) -> Any:
    """The value of a JSON text.

    Raises RowError (invalid_request) that says where the text goes wrong. NaN and Infinity are no JSON.
    """
    name = param or "the line"
    try:
        decoded = _decode(text, param or "")
        hook = _keep_null_const if '"const"' in decoded else None
        return json.loads(decoded, parse_constant=_refuse_constant, object_hook=hook)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno} (character {error.pos})"
        raise RowError("invalid_request", f"{name} is not JSON: {error.msg} at {place}", param) from None
    except RecursionError:
        raise RowError("invalid_request", f"{name} is nested too deeply", param) from None
    except ValueError as error:
        raise RowError("invalid_request", f"{name} is not JSON: {error}", param) from None


def plain(value: Any, param: str = "", depth: int = 0, *, keep_nulls: bool = False) -> Any:
    """A copy of `value` made of dict, list, str, int, float and bool only, its null fields left out.

    Arrow gives every struct all of its fields, so a null field means an absent one, at any depth;
    keep_nulls: not so in a text of JSON.
    Raises RowError (invalid_request) for text that isn't Unicode, NaN, infinity, and deep nesting.
    """
    if depth > MAX_DEPTH:
        raise _invalid(param, f"is nested deeper than the {MAX_DEPTH} levels allowed")
    if isinstance(value, dict):
        items = ((_text(key, param), item) for key, item in value.items() if keep_nulls or item is not None)
        return {
            key: plain(item, f"{param}.{key}" if param else key, depth + 1, keep_nulls=keep_nulls)
            for key, item in items
        }
    if isinstance(value, list | tuple):
        # Lists of token ids are long, and need no look.
        return [
            v if type(v) is int else plain(v, f"{param}[{i}]", depth + 1, keep_nulls=keep_nulls)
            for i, v in enumerate(value)
        ]
    if isinstance(value, str | bytes):
        return _text(value, param)
    return _number(value, param) if isinstance(value, float | Decimal) else value


def _number(value: float | Decimal, param: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise _invalid(param, f"must be a finite number, not {number}")
    return number


def _text(value: Any, param: str) -> str:
    if isinstance(value, bytes):
        return _decode(value, param)
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _invalid(param, f"has a lone surrogate at character {error.start}") from None
    return value if isinstance(value, str) else str(value)


def _decode(value: str | bytes, param: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _invalid(param, f"is not UTF-8: {error.reason} at byte {error.start}") from None


def _invalid(param: str, reason: str) -> RowError:
    return RowError("invalid_request", f"{param or 'the row'} {reason}", param or None)


def _keep_null_const(value: dict[str, Any]) -> dict[str, Any]:
    """In a JSON schema, a null const is not an absent one: as an enum it outlives `plain`."""
    if "const" not in value or value["const"] is not None:
        return value
    return {name: item for name, item in value.items() if name != "const"} | {"enum": [None]}


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
