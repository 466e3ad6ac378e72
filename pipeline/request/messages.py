"""The turns of a chat."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from pipeline.errors import RowError
from pipeline.request.fields import Fields, wrong
from pipeline.request.json_values import plain, read_json, short

PART_WITHOUT_MEANING = ("annotations", "cache_control")


def _join_parts(value: Any) -> Any:
    """Content parts become one text, a line break between two, as llama-server joins them."""
    if not isinstance(value, list):
        return value
    return "\n".join(_part_text(part, f"[{i}]") for i, part in enumerate(value))


def _part_text(part: Any, at: str) -> str:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise wrong(f'must be {{"type": "text", "text": ...}}, not {short(part)}', at)
    if part["type"] == "refusal" and isinstance(part.get("refusal"), str):
        return str(part["refusal"])
    if part["type"] != "text":
        reason = f"{part['type']!r} parts are not supported; supported: text"
        raise wrong(reason, f"{at}.type", "unsupported_parameter")
    if not isinstance(part.get("text"), str):
        raise wrong(f"must be a string, not {short(part.get('text'))}", f"{at}.text")
    if unknown := sorted(part.keys() - {"type", "text", *PART_WITHOUT_MEANING}):
        raise wrong("is not supported in a text part", f"{at}.{unknown[0]}", "unsupported_parameter")
    return str(part["text"])


def _read_arguments(value: Any) -> Any:
    """What a model wrote comes back as OpenAI sent it, a string of JSON; templates want the object."""
    try:
        found = read_json(value or "{}", "it") if isinstance(value, str) else value
        found = plain(found, "it", keep_nulls=True)
    except RowError as error:
        raise wrong(f"must be a string of a JSON object, but {error.message}") from None
    if not isinstance(found, dict):
        raise wrong(f"must be a string of a JSON object, not {short(value)}")
    return found


def _only_asked(value: Any) -> Any:
    """OpenAI's answers, sent back as turns, have lists that say nothing, and a refusal beside the text."""
    if not isinstance(value, dict):
        return value
    found = {k: v for k, v in value.items() if v != [] or k == "content"}
    if found.get("prefix") is False:
        del found["prefix"]
    for name, other in (("reasoning", "reasoning_content"), ("refusal", "content")):
        if isinstance(found.get(name), str):
            text = found.pop(name)
            found[other] = found.get(other) or text
    return found


_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
Role = Annotated[
    Literal["system", "user", "assistant", "tool"],
    BeforeValidator(lambda role: "system" if role == "developer" else role),
    WithJsonSchema({"enum": ["system", "developer", "user", "assistant", "tool"]}),
]
Content = Annotated[
    str,
    BeforeValidator(_join_parts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]}),
]
Arguments = Annotated[
    dict[str, Any],
    BeforeValidator(_read_arguments),
    WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
]


class FunctionCall(Fields):
    """arguments: the parsed object."""

    without_meaning: ClassVar[tuple[str, ...]] = ("parsed_arguments",)

    name: str = Field(min_length=1, description="a string that is not empty")
    arguments: Arguments = Field(description="a string of a JSON object")


class ToolCall(Fields):
    """What an assistant asked for in an earlier turn."""

    shape: ClassVar[str] = 'a call such as {"id": "...", "type": "function", "function": {...}}'
    without_meaning: ClassVar[tuple[str, ...]] = ("extra_content", "index", "provider_specific_fields")

    id: str | None = Field(None, description="a string")
    type: Literal["function"] = Field("function", description='"function"')
    function: FunctionCall = Field(description='an object such as {"name": "...", "arguments": "{}"}')


class Message(Fields):
    """One message of a chat. `developer` is today's name of `system`; content parts come joined."""

    shape: ClassVar[str] = 'a message such as {"role": "user", "content": "..."}'
    without_meaning: ClassVar[tuple[str, ...]] = (
        "annotations",
        "cache_control",
        "id",
        "parsed",
        "provider_specific_fields",
        "weight",
    )

    role: Role = Field(description="one of system, developer, user, assistant, tool")
    content: Content | None = Field(None, description="a string or a list of text parts")
    name: str | None = Field(None, description="a string")
    tool_calls: list[ToolCall] | None = Field(None, description="a list of tool calls")
    tool_call_id: str | None = Field(None, description="a string")
    reasoning_content: str | None = Field(None, description="a string")

    _quiet = model_validator(mode="before")(_only_asked)

    @model_validator(mode="after")
    def _fits_its_role(self) -> Message:
        if self.role != "assistant":
            for name in ("tool_calls", "reasoning_content"):
                if getattr(self, name) is not None:
                    raise wrong("belongs to the assistant's messages", f".{name}")
        if self.role != "tool" and self.tool_call_id is not None:
            raise wrong("belongs to messages of the role tool", ".tool_call_id")
        if self.content is None and not self.tool_calls:
            raise wrong("is required", ".content")
        return self

    def for_template(self) -> dict[str, Any]:
        """As Hugging Face's templates know a message: arguments as objects, content null beside calls."""
        return {"role": self.role, "content": None} | self.model_dump(exclude_none=True)
