"""What llguidance can't do, said by its name and its place in the request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.constraints import Constraint
from pipeline.errors import RowError

_LINE = 400
# What llguidance says, and the keyword at which it said so; its group is what the keyword says.
_UNSERVED = re.compile(r"Unimplemented keys: \[(.*)\]")
_SYNTAX = re.compile(r"regex parse error:(?s:.*)\nerror: (.+)")
_KEYWORDS: Mapping[str, re.Pattern[str]] = {
    "format": re.compile(r"Unknown format: (.+)"),
    "type": re.compile(r"Invalid type: (.+)"),
    "$ref": re.compile(r"(?:Pointer|Resource) '(.+?)'"),
    "pattern": re.compile(r"regex parse error:\s+(.+)"),
}
_MAPS = frozenset("properties patternProperties $defs definitions dependentSchemas".split())
_LISTS = frozenset("allOf anyOf oneOf prefixItems items".split())
_ONES = frozenset(
    "items additionalProperties additionalItems contains propertyNames not if then else "
    "unevaluatedItems unevaluatedProperties contentSchema".split()
)

Place = tuple[str, dict[str, Any]]


def grammar_error(constraint: Constraint, message: str) -> RowError:
    """The RowError for what llguidance said about a constraint: an error, or a warning of what it ignores."""
    if constraint.kind in ("json_schema", "json_object", "tools"):
        for root, schema in _roots(constraint):
            if found := _schema_error(root, schema, message):
                return found
    syntax = _SYNTAX.search(message)
    reason = syntax[1] if syntax else message.partition("\n<state>")[0][:_LINE]
    return RowError("invalid_request", f"{constraint.param} can't be compiled: {reason}", constraint.param)


def _roots(constraint: Constraint) -> Iterator[Place]:
    record = json.loads(constraint.text)
    if constraint.kind != "tools":
        yield constraint.param or "", record
        return
    for call in record["calls"]:
        yield f"tools[{call['index']}].function.parameters", call["schema"]
    if "else" in record:
        yield constraint.param or "", record["else"]


def _schema_error(root: str, schema: dict[str, Any], message: str) -> RowError | None:
    if unserved := _UNSERVED.search(message):
        name = json.loads(f"[{unserved[1]}]")[0]
        place = next((path for path, sub in _subschemas(root, schema) if name in sub), None)
        reason = f"{place}.{name} is not supported in a JSON schema"
        return RowError("unsupported_parameter", reason, f"{place}.{name}") if place else None
    for keyword, pattern in _KEYWORDS.items():
        if not (found := pattern.search(message)):
            continue
        for path, sub in _subschemas(root, schema):
            if keyword in sub and _says(sub[keyword], found[1]):
                code = "unsupported_parameter" if keyword in ("format", "pattern") else "invalid_request"
                syntax = _SYNTAX.search(message)
                reason = (syntax[1] if syntax else message)[:_LINE]
                return RowError(code, f"{path}.{keyword}: {reason}", f"{path}.{keyword}")
    return None


def _says(value: Any, text: str) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(v, str) and (v == text or v in text or text in v) for v in values)


def _subschemas(path: str, schema: Any) -> Iterator[Place]:
    """Every schema inside `schema` with its path, outer ones first; a property's name is no keyword."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            for name, inner in value.items():
                yield from _subschemas(f"{path}.{key}.{name}", inner)
        elif key in _LISTS and isinstance(value, list):
            for i, inner in enumerate(value):
                yield from _subschemas(f"{path}.{key}[{i}]", inner)
        elif key in _ONES:
            yield from _subschemas(f"{path}.{key}", value)
