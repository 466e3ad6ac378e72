"""The schemas inside a JSON schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

_MAPS = frozenset("properties patternProperties $defs definitions dependentSchemas".split())
_LISTS = frozenset("allOf anyOf oneOf prefixItems items".split())
_ONES = frozenset(
    "items additionalProperties additionalItems contains propertyNames not if then else "
    "unevaluatedItems unevaluatedProperties contentSchema".split()
)

Place = tuple[str, dict[str, Any]]
"""A schema and its path in the request."""


def pointed_at(schema: Any, reference: str) -> Any:
    """What a reference within the schema ("#/$defs/Colour") leads to; None where that is nothing."""
    found = schema if reference.startswith("#") else None
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, dict) else None
    return found


def subschemas(path: str, schema: Any) -> Iterator[Place]:
    """Every schema inside `schema` with its path, outer ones first; a property's name is no keyword."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            for name, inner in value.items():
                yield from subschemas(f"{path}.{key}.{name}", inner)
        elif key in _LISTS and isinstance(value, list):
            for i, inner in enumerate(value):
                yield from subschemas(f"{path}.{key}[{i}]", inner)
        elif key in _ONES:
            yield from subschemas(f"{path}.{key}", value)
