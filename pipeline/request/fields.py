"""Types of request fields that pydantic alone can't explain: each says what it wants, and where it failed."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from pipeline.request.json_values import short

MAX_STOPS = 16
MAX_INPUTS = 2048
MAX_CHOICES = 4096
UNLIMITED = 2**31 - 1
"""As many tokens as the context has room for."""
# What a chat template gets from the request itself, and from the model.
_OWN_VARIABLES = frozenset(
    "messages tools add_generation_prompt continue_final_message bos_token eos_token chat_template".split()
)


class Fields(BaseModel):
    """A JSON object of a request. Each description completes the sentence "<field> must be ..."."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    shape: ClassVar[str] = "an object"
    """What such an object looks like, for messages."""
    without_meaning: ClassVar[tuple[str, ...]] = ()
    """Names that clients and servers write into such an object, and that change no answer."""

    @model_validator(mode="before")
    @classmethod
    def _drop_what_has_no_meaning(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not cls.without_meaning:
            return value
        return {name: item for name, item in value.items() if name not in cls.without_meaning}


def whole(value: Any) -> Any:
    """Parquet writers turn a column of integers with gaps into floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def wrong(reason: str, at: str = "", code: str = "invalid_request") -> PydanticCustomError:
    """What a validator raises. `at`: the path from the field to the part at fault."""
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "at": at, "code": code})


def _check_stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise wrong(f"must be a string or a list of at most {MAX_STOPS} strings, not {short(value)}")
    for i, stop in enumerate(stops):
        if not isinstance(stop, str) or not stop:
            at = "" if isinstance(value, str) else f"[{i}]"
            raise wrong(f"must be a string that is not empty, not {short(stop)}", at)
    return tuple(stops)


def _check_choices(value: Any) -> Any:
    if not isinstance(value, list) or len(value) > MAX_CHOICES:
        raise wrong(f"must be a list of at most {MAX_CHOICES} strings, not {short(value)}")
    for i, choice in enumerate(value):
        if not isinstance(choice, str) or not choice:
            raise wrong(f"must be a string that is not empty, not {short(choice)}", f"[{i}]")
    if len(set(value)) < len(value):
        twice = next(i for i, choice in enumerate(value) if choice in value[:i])
        raise wrong(f"is {short(value[twice])} once more", f"[{twice}]")
    return tuple(value)


def _check_bias(value: Any) -> Any:
    if value == []:  # llama-server's way to say none
        return ()
    if not isinstance(value, dict):
        raise wrong(f"must be a mapping of token ids to numbers from -100 to 100, not {short(value)}")
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal()):
            raise wrong(f"has {short(token)}, which is no token id")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise wrong(f"must be a number from -100 to 100, not {short(bias)}", f".{token}")
    return tuple(sorted((int(token), float(bias)) for token, bias in value.items()))


def _check_breakers(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise wrong(f"must be a list of strings that are not empty, not {short(value)}")
    return tuple(value)


def _check_tokens(value: list[Any], at: str = "") -> tuple[int, ...]:
    tokens = tuple(map(whole, value))
    for i, token in enumerate(tokens):
        if type(token) is not int:
            raise wrong(f"must be a token id, not {short(token)}", f"{at}[{i}]")
    return tokens


def _unlimited(value: Any) -> Any:
    return UNLIMITED if whole(value) == -1 else whole(value)


def _all_tokens(value: Any) -> Any:
    return 0 if whole(value) == -1 else whole(value)


def _check_prompt(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
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


def _check_options(value: Any) -> Any:
    if not isinstance(value, dict):
        raise wrong(f"must be a mapping of the chat template's variables to values, not {short(value)}")
    if taken := sorted(value.keys() & _OWN_VARIABLES):
        raise wrong("is not for a request to set", f".{taken[0]}", "unsupported_parameter")
    return value


Text = str | tuple[int, ...]
"""A text, or the ids of its tokens."""

# Each with the JSON schema of what it takes, for the OpenAPI document: its validator says more than its type.
_STRING = {"type": "string", "minLength": 1}
_TOKENS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_BIAS = {"type": "number", "minimum": -100, "maximum": 100}

Integer = Annotated[int, BeforeValidator(whole)]
Limit = Annotated[
    int,
    BeforeValidator(_unlimited),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": -1}]}),
]
TopK = Annotated[int, BeforeValidator(_all_tokens), WithJsonSchema({"type": "integer", "minimum": -1})]
Choices = Annotated[
    tuple[str, ...],
    BeforeValidator(_check_choices),
    WithJsonSchema({"type": "array", "items": _STRING, "maxItems": MAX_CHOICES, "uniqueItems": True}),
]
Bias = Annotated[
    tuple[tuple[int, float], ...],
    BeforeValidator(_check_bias),
    WithJsonSchema(
        {"type": "object", "propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": _BIAS}
    ),
]
Breakers = Annotated[
    tuple[str, ...], BeforeValidator(_check_breakers), WithJsonSchema({"type": "array", "items": _STRING})
]
Stops = Annotated[
    tuple[str, ...],
    BeforeValidator(_check_stops),
    WithJsonSchema({"anyOf": [_STRING, {"type": "array", "items": _STRING, "maxItems": MAX_STOPS}]}),
]
TemplateOptions = Annotated[dict[str, Any], BeforeValidator(_check_options)]
Prompt = Annotated[
    Text,
    BeforeValidator(_check_prompt),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                _TOKENS,
                # Of several, the service makes as many requests; a row has one.
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "array", "items": _TOKENS, "minItems": 1},
            ]
        }
    ),
]
Input = Annotated[
    Text | list[Text],
    BeforeValidator(_check_input),
    WithJsonSchema(
        {
            "anyOf": [
                _STRING,
                _TOKENS,
                {"type": "array", "items": _STRING, "minItems": 1, "maxItems": MAX_INPUTS},
                {"type": "array", "items": _TOKENS, "minItems": 1, "maxItems": MAX_INPUTS},
            ]
        }
    ),
]
