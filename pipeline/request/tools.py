"""The functions that a chat may call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from pipeline.request.fields import Fields, wrong
from pipeline.request.json_values import short

MAX_TOOLS = 128
_MODES = ("none", "auto", "required")


class Function(Fields):
    """parameters: a JSON schema; absent where the function takes none.

    return: a JSON schema, as transformers describes a function.
    """

    without_meaning: ClassVar[tuple[str, ...]] = ("cache_control",)

    name: str = Field(
        pattern=r"^[a-zA-Z0-9_.-]{1,64}$", description="1 to 64 letters, digits, underscores, dots and dashes"
    )
    description: str | None = Field(None, description="a string")
    parameters: dict[str, Any] | None = Field(None, description="a JSON schema")
    strict: bool | None = Field(None, description="true or false")
    return_: dict[str, Any] | None = Field(None, alias="return", description="a JSON schema")


class Tool(Fields):
    """A function, as OpenAI wraps it."""

    shape: ClassVar[str] = 'a tool such as {"type": "function", "function": {"name": "..."}}'
    without_meaning: ClassVar[tuple[str, ...]] = ("cache_control",)

    type: Literal["function"] = Field(description='"function"')
    function: Function = Field(description='an object such as {"name": "..."}')

    def for_template(self) -> dict[str, Any]:
        """As the request had it."""
        return self.model_dump(exclude_none=True, by_alias=True)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """name: the one function that must be called; its mode is "required"."""

    mode: Literal["none", "auto", "required"] = "auto"
    name: str | None = None


def _choice(value: Any) -> Any:
    if isinstance(value, str) and value in _MODES:
        return ToolChoice(value)  # type: ignore[arg-type]
    if not isinstance(value, dict):
        raise wrong(f"must be one of none, auto, required, or a function, not {short(value)}")
    if value.get("type") != "function":
        reason = f'must be "function", not {short(value.get("type"))}'
        raise wrong(reason, ".type", "unsupported_parameter")
    function = value.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise wrong(f"must be the name of a tool, not {short(name)}", ".function.name")
    return ToolChoice("required", name)


Tools = Annotated[list[Tool], Field(max_length=MAX_TOOLS)]
_FUNCTION = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
Choice = Annotated[
    ToolChoice,
    BeforeValidator(_choice),
    WithJsonSchema({"anyOf": [{"enum": list(_MODES)}, _FUNCTION]}),
]
