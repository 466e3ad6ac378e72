"""Types of request fields that pydantic alone can't explain: each says what it wants, and where it failed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from pipeline.json_values import short

MAX_STOPS = 16
MAX_INPUTS = 2048


def _whole(value: Any) -> Any:
    """Parquet writers turn a column of integers with gaps into floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def wrong(reason: str, at: str = "", code: str = "invalid_request") -> PydanticCustomError:
    """What a validator raises. `at`: the path from the field to the part at fault."""
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "at": at, "code": code})


def _join_parts(value: Any) -> Any:
    """Content parts become one text, a line break between two, as llama-server joins them."""
    if not isinstance(value, list):
        return value
    return "\n".join(_part_text(part, f"[{i}]") for i, part in enumerate(value))


def _part_text(part: Any, at: str) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise wrong(f'must be {{"type": "text", "text": ...}}, not {short(part)}', at)
    if part["type"] != "text":
        reason = f"{part['type']!r} parts are not supported; supported: text"
        raise wrong(reason, f"{at}.type", "unsupported_parameter")
    if not isinstance(part.get("text"), str):
        raise wrong(f"must be a string, not {short(part.get('text'))}", f"{at}.text")
    if unknown := sorted(part.keys() - {"type", "text"}):
        raise wrong("is not supported in a text part", f"{at}.{unknown[0]}", "unsupported_parameter")
    return str(part["text"])


def _check_stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise wrong(f"must be a string or a list of at most {MAX_STOPS} strings, not {short(value)}")
    for i, stop in enumerate(stops):
        if not isinstance(stop, str) or not stop:
            at = "" if isinstance(value, str) else f"[{i}]"
            raise wrong(f"must be a string that is not empty, not {short(stop)}", at)
    return tuple(stops)


def _check_tokens(value: list[Any], at: str = "") -> tuple[int, ...]:
    tokens = tuple(map(_whole, value))
    for i, token in enumerate(tokens):
        if type(token) is not int:
            raise wrong(f"must be a token id, not {short(token)}", f"{at}[{i}]")
    return tokens


def _check_prompt(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and not isinstance(value[0], str | list):
        return _check_tokens(value)
    raise wrong(f"must be a single text or a list of token ids, not {short(value)}")


def _check_input(value: Any) -> Any:
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        if len(value) > MAX_INPUTS:
            raise wrong(f"has {len(value)} texts, but at most {MAX_INPUTS} are allowed")
        return [_check_text(item, type(value[0]), f"[{i}]") for i, item in enumerate(value)]
    return _check_text(value, type(value))


def _check_text(value: Any, kind: type, at: str = "") -> str | tuple[int, ...]:
    allowed = "a text or a list of token ids, not empty"
    if not at:
        allowed += ", or a list of either"
    if not isinstance(value, kind) or not isinstance(value, str | list) or not value:
        raise wrong(f"must be {allowed}, not {short(value)}", at)
    return value if isinstance(value, str) else _check_tokens(value, at)


Text = str | tuple[int, ...]
"""A text, or the ids of its tokens."""

Integer = Annotated[int, BeforeValidator(_whole)]
Role = Annotated[
    Literal["system", "user", "assistant", "tool"],
    BeforeValidator(lambda role: "system" if role == "developer" else role),
]
Content = Annotated[str, BeforeValidator(_join_parts)]
Stops = Annotated[tuple[str, ...], BeforeValidator(_check_stops)]
Prompt = Annotated[Text, BeforeValidator(_check_prompt)]
Input = Annotated[Text | list[Text], BeforeValidator(_check_input)]
