"""What llguidance can't do, said by its name and its place in the request."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from pipeline.constraint.constraints import Constraint
from pipeline.constraint.grammars import fault_of, roots
from pipeline.constraint.subschemas import pointed_at, subschemas
from pipeline.errors import RowError

Schema = dict[str, Any]

_LINE = 400
_TRIALS = 500
_LEVELS = 16
_IMPOSSIBLE = re.compile(
    r"required property '(.+)' is unsatisfiable(?:\s+while processing json-schema:///(#\S+))?"
)
# What llguidance says, and the keyword at which it said so; its group is what the keyword says.
_UNSERVED = re.compile(r"Unimplemented keys: \[(.*)\]")
_SYNTAX = re.compile(r"regex parse error:(?s:.*)\nerror: (.+)")
# Which keyword is at fault, and a group for what it says, where llguidance repeats that.
_KEYWORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("pattern", re.compile(r"regex parse error:\s+(.+)")),
    ("oneOf", re.compile(r"oneOf constraints are not supported")),
    ("patternProperties", re.compile(r"patternProperty regexes .* are not disjoint")),
    ("multipleOf", re.compile(r"'multipleOf' has too many digits")),
    ("$ref", re.compile(r"Resource '(.+?)'")),
)
_BROKEN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("type", re.compile(r"Invalid type: (.+)")),
    ("$ref", re.compile(r"Pointer '(.+?)'")),
)


def grammar_error(constraint: Constraint, message: str) -> RowError:
    """The RowError for what llguidance said about a constraint: an error, or a warning of what it ignores."""
    if constraint.kind in ("json_schema", "json_object", "tools"):
        for root, schema in roots(constraint):
            if found := _schema_error(root, schema, message):
                return found
    reason = f"{constraint.param} can't be compiled: {_reason(message)}"
    return RowError("invalid_request", reason, constraint.param)


def _schema_error(root: str, schema: Schema, message: str) -> RowError | None:
    if unserved := _UNSERVED.search(message):
        name = json.loads(f"[{unserved[1]}]")[0]
        place = next((path for path, sub in subschemas(root, schema) if name in sub), None)
        reason = f"{place}.{name} is not supported in a JSON schema"
        return RowError("unsupported_parameter", reason, f"{place}.{name}") if place else None
    for code, keywords in (("unsupported_parameter", _KEYWORDS), ("invalid_request", _BROKEN)):
        for keyword, pattern in keywords:
            if (found := pattern.search(message)) and (place := _place(root, schema, keyword, found)):
                return RowError(code, f"{place}: {_reason(message)}", place)
    return _impossible(root, schema, message) or _by_trial(root, schema, message)


def _impossible(root: str, whole: Schema, message: str) -> RowError | None:
    """Follows the required properties that nothing fits to the one that is why."""
    found, path, schema = None, root, whole
    for _ in range(_LEVELS):
        needed = _IMPOSSIBLE.search(message)
        if not needed:
            return found
        if needed[2]:
            path, schema = (
                root + needed[2].replace("/", ".").removeprefix("#"),
                pointed_at(whole, needed[2]) or {},
            )
        path, schema = f"{path}.properties.{needed[1]}", schema.get("properties", {}).get(needed[1])
        if not isinstance(schema, dict):
            return found
        message = fault_of(_definitions(whole) | schema) or message
        found = _at(path, schema, message)
    return found


def _by_trial(root: str, whole: Schema, message: str) -> RowError | None:
    """Compiles the schemas inside one by one: the innermost that fails for the same reason is at fault."""
    for path, schema in reversed(list(islice(subschemas(root, whole), 1, _TRIALS))):
        if _first_line(fault_of(_definitions(whole) | schema)) == _first_line(message):
            return _at(path, schema, message)
    return None


def _definitions(schema: Schema) -> Schema:
    return {name: schema[name] for name in ("$defs", "definitions") if name in schema}


def _at(path: str, schema: Schema, message: str) -> RowError:
    if "regex" in message.lower() and "pattern" in schema:
        path = f"{path}.pattern"
    code = "unsupported_parameter" if "not supported" in message else "invalid_request"
    return RowError(code, f"{path}: {_reason(message)}", path)


def _first_line(message: str | None) -> str | None:
    return message and message.partition("\n<state>")[0]


def _place(root: str, schema: Schema, keyword: str, found: re.Match[str]) -> str | None:
    for path, sub in subschemas(root, schema):
        if keyword in sub and (not found.groups() or _says(sub[keyword], found[1])):
            return f"{path}.{keyword}"
    return None


def _reason(message: str) -> str:
    if "coerce_one_of" in message:
        return "its schemas must differ by type or by a required property with a const; use anyOf otherwise"
    syntax = _SYNTAX.search(message)
    return (syntax[1] if syntax else _first_line(message) or "")[:_LINE]


def _says(value: Any, text: str) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(v, str) and (v == text or v in text or text in v) for v in values)
