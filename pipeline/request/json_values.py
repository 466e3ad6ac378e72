"""Values from outside: read from JSON, or come out of Arrow, and made plain before anyone trusts them."""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any

from pipeline.errors import RowError
from pipeline.request.row_values import JsonText, WrittenNumber

MAX_DEPTH = 64
_TEXTS = ("content", "text", "prompt")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def short(value: Any) -> str:
    """`repr(value)` cut to a length that fits a message, however large the value is."""
    return _SHORT.repr(value)


def read_json(text: str | bytes, param: str | None, *, as_written: bool = False) -> Any:
    """The value of a JSON text.

    as_written: numbers with a fraction or an exponent are WrittenNumbers.
    Raises RowError (invalid_request) that says where the text goes wrong. NaN and Infinity are no JSON.
    """
    name = param or "the line"
    try:
        decoded = _decode(text, param or "")
        hook = _keep_null_const if '"const"' in decoded else None
        number = WrittenNumber if as_written else None
        return json.loads(decoded, parse_constant=_refuse_constant, object_hook=hook, parse_float=number)
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
    keep_nulls: not so in a text of JSON. A JsonText becomes what it says.
    Raises RowError (invalid_request) for text that isn't Unicode, NaN, infinity, and deep nesting.
    """
    if isinstance(value, JsonText):
        return plain(_said(value, param), param, depth, keep_nulls=keep_nulls)
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
    return _number(value, param) if isinstance(value, float) else value


def as_written(value: Any, param: str, depth: int = 0) -> Any:
    """A row's value for a template: as `plain`, but it keeps nulls, numbers' digits and texts of JSON.

    Of JSON, a string is its text, and null is null.
    """
    if depth > MAX_DEPTH:
        raise _invalid(param, f"is nested deeper than the {MAX_DEPTH} levels allowed")
    if isinstance(value, dict):
        return {_text(key, param): as_written(item, param, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_written(item, param, depth + 1) for item in value]
    if isinstance(value, JsonText):
        return read_json(str(value), param) if value.startswith('"') or value == "null" else value
    return _text(value, param) if isinstance(value, str | bytes) else value


def json_text(value: Any, indent: int | None = None, level: int = 1) -> str:
    """JSON of a row's value: numbers as they were written, JsonText as the JSON that it is, times as texts.

    Raises ValueError for NaN and infinity.
    """
    if isinstance(value, JsonText):
        value = read_json(value, None, as_written=True)
    if isinstance(value, dict):
        pairs = [f"{_json(str(key))}: {json_text(item, indent, level + 1)}" for key, item in value.items()]
        return _enclosed("{", pairs, "}", indent, level)
    if isinstance(value, list | tuple):
        return _enclosed("[", [json_text(item, indent, level + 1) for item in value], "]", indent, level)
    if isinstance(value, WrittenNumber):
        return value.digits
    is_json = value is None or isinstance(value, str | int | float)
    return _json(value if is_json else str(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _enclosed(begin: str, items: list[str], end: str, indent: int | None, level: int) -> str:
    if indent is None or not items:
        return begin + ", ".join(items) + end
    line = "\n" + " " * indent * level
    return f"{begin}{line}{f',{line}'.join(items)}{line[: len(line) - indent]}{end}"


def _said(text: JsonText, param: str) -> Any:
    """What a text of JSON says; in fields for text, the text itself where it says none.

    Hugging Face's datasets store a string that happens to be JSON as it is: a message "5" as 5.
    """
    try:
        value = read_json(str(text), param)
    except RowError:
        value = str(text)
    is_text = param.rpartition(".")[2].partition("[")[0] in _TEXTS
    is_parts = isinstance(value, list) and all(isinstance(part, dict) and "type" in part for part in value)
    return value if not is_text or is_parts or isinstance(value, str | None) else str(text)


def _number(value: float, param: str) -> float:
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
