"""Arguments of tool calls that are no JSON object: marks around each value, or Python's keywords."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.chat.call_values import types_of
from pipeline.chat.tool_forms import ToolForm
from pipeline.constraint.lark import Literal, json_rule, quoted

# What a schema may say of its object beside the properties, and of a string, so that any text will do.
_OBJECT = frozenset(
    ("type", "properties", "required", "additionalProperties", "title", "description", "$schema")
)
_TEXT = frozenset(("type", "title", "description", "default", "examples"))


@dataclass(frozen=True, slots=True)
class Property:
    """A parameter of a function."""

    name: str
    schema: dict[str, Any]
    required: bool


def properties(schema: dict[str, Any]) -> list[Property] | None:
    """The parameters in the schema's order; None for a schema that says more than them."""
    found = schema.get("properties", {})
    if schema.keys() - _OBJECT or not all(isinstance(inner, dict) for inner in found.values()):
        return None
    required = schema.get("required", [])
    if set(required) - found.keys():
        return None
    return [Property(name, inner, name in required) for name, inner in found.items()]


def arguments_rules(
    form: ToolForm, rule: str, schema: dict[str, Any], literal: Literal
) -> tuple[str, list[str]] | None:
    """An expression for the arguments of one function, and the rules that it needs, whose names begin with
    `rule`. None where the form can't keep to the schema."""
    parts = properties(schema)
    if parts is None:
        return None
    if form.kind == "python":
        return _keywords(parts), []
    # A text goes on to the next mark, which has to be letters for that.
    if literal(form.value_end) != quoted(form.value_end):
        return None
    values = [_value(part, f"{rule}_{number}", form) for number, part in enumerate(parts)]
    if None in values:
        return None
    found = [value for value in values if value]
    wholes = [
        f"{literal(form.key_begin)} {quoted(part.name)} {literal(form.key_end)} {value}"
        for part, (value, _) in zip(parts, found, strict=True)
    ]
    optional = (whole if part.required else f"({whole})?" for part, whole in zip(parts, wholes, strict=True))
    return " ".join(optional), [line for _, lines in found for line in lines]


def _value(part: Property, rule: str, form: ToolForm) -> tuple[str, list[str]] | None:
    """An expression for a value and the mark behind it."""
    schema, end = part.schema, quoted(form.value_end)
    types = set(types_of(schema))
    if types == {"string"} and not schema.keys() - _TEXT:
        return rule, [f"{rule}[suffix={end}]: /(?s:.*)/"]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices and all(isinstance(choice, str) for choice in choices):
        return f"({' | '.join(map(quoted, choices))}) {end}", []
    return (f"{json_rule(schema)} {end}", []) if types and "string" not in types else None


def _keywords(parts: list[Property]) -> str:
    """Required ones first, then the others: commas stand between, whichever of them there are."""
    required = [_keyword(part) for part in parts if part.required]
    optional = [_keyword(part) for part in parts if not part.required]
    text = ' ", " '.join(required)
    if required:
        return " ".join([text, *(f'(", " {part})?' for part in optional)])
    return " | ".join(_tails(optional)) if optional else '""'


def _tails(parts: list[str]) -> Iterator[str]:
    yield '""'
    for number, part in enumerate(parts):
        yield " ".join([f"({part}", *(f'(", " {later})?' for later in parts[number + 1 :])]) + ")"


def _keyword(part: Property) -> str:
    return f"{quoted(part.name + '=')} {json_rule(part.schema)}"
