"""Constraints as llguidance's grammars, bounded so that none of them breaks the process."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from pipeline.chat.tool_forms import BARE, ToolForm
from pipeline.constraint.call_grammars import tools_grammar
from pipeline.constraint.constraints import Constraint
from pipeline.constraint.equivalents import use_equivalents
from pipeline.constraint.lark import COMPACT, Literal, quoted
from pipeline.constraint.subschemas import Place, pointed_at, subschemas
from pipeline.errors import RowError
from pipeline.request.json_values import short

MAX_GRAMMAR = 64 * 1024
MAX_REGEX = 16 * 1024
# A rule nests as deep as the rules that it uses, a schema as those that it refers to; at some thousands
# of levels the compiler's stack ends, and the process with it.
MAX_GRAMMAR_LEVELS = 800
MAX_REFERENCE_LEVELS = 1000
# The compiler's numbers are doubles: larger ones lose digits, and some near -2**63 end its stack.
MAX_INTEGER = 2**53

_QUOTED = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|//[^\n]*')
_RULE = re.compile(r"\n(?=[^\n\"]*:)")

_GBNF = re.compile(r"^\s*[A-Za-z][\w-]*\s*::=", re.MULTILINE)


def grammar_of(constraint: Constraint, form: ToolForm | None, literal: Literal = quoted) -> str:
    """llguidance's grammar. form: how the model calls tools. Raises RowError above the bounds."""
    match constraint.kind:
        case "choice":
            words = " | ".join(map(quoted, constraint.choices))
            return LLMatcher.grammar_from_lark(f"start: CHOICE\nCHOICE: {words}")
        case "regex":
            return LLMatcher.grammar_from_regex(_regex(constraint))
        case "grammar":
            return LLMatcher.grammar_from_lark(_lark(constraint))
        case "tools":
            record = json.loads(constraint.text)
            for param, schema in _roots(constraint, record):
                _prepare(schema, param)
            return LLMatcher.grammar_from_lark(tools_grammar(record, form or BARE, literal))
        case _:
            return _schema_grammar(json.loads(constraint.text), constraint.param or "")


def _regex(constraint: Constraint) -> str:
    """The whole answer matches anyway: anchors at the ends say nothing new, and llguidance has none."""
    text = constraint.text
    if len(text) > MAX_REGEX:
        raise _beyond(constraint.param, f"has {len(text)} characters", f"{MAX_REGEX}")
    text = text.removeprefix("^")
    if text.endswith("$") and (len(text) - len(text[:-1].rstrip("\\"))) % 2:
        text = text[:-1]
    return text


def _lark(constraint: Constraint) -> str:
    text = constraint.text
    if len(text) > MAX_GRAMMAR:
        raise _beyond(constraint.param, f"has {len(text)} characters", f"{MAX_GRAMMAR}")
    if _GBNF.search(text):
        text = _lark_of_gbnf(text, constraint.param)
    bare = _QUOTED.sub('""', text)
    levels = sum(1 + _nesting(rule) for rule in _RULE.split(bare)) + text.count("$ref")
    if levels > MAX_GRAMMAR_LEVELS:
        reason = f"has rules and brackets of {levels} levels together"
        raise _beyond(constraint.param, reason, f"{MAX_GRAMMAR_LEVELS} levels")
    return text


def _lark_of_gbnf(text: str, param: str | None) -> str:
    try:
        return str(gbnf_to_lark(text))
    except (GbnfToLarkError, ValueError, RecursionError) as error:
        raise RowError("invalid_request", f"{param} is not GBNF: {error}", param) from None


def _nesting(text: str) -> int:
    deepest = level = 0
    for mark in re.findall(r"[(\[{}\])]", text):
        level += 1 if mark in "([{" else -1
        deepest = max(deepest, level)
    return deepest


def roots(constraint: Constraint) -> Iterator[Place]:
    """The JSON schemas of a constraint."""
    return _roots(constraint, json.loads(constraint.text))


def _roots(constraint: Constraint, record: dict[str, Any]) -> Iterator[Place]:
    if constraint.kind != "tools":
        yield constraint.param or "", record
        return
    for call in record["calls"]:
        yield f"tools[{call['index']}].function.parameters", call["schema"]
    if "else" in record:
        yield constraint.param or "", record["else"]


def fault_of(schema: dict[str, Any]) -> str | None:
    """What llguidance says of a schema by itself; None where it is fine."""
    _, messages = LLMatcher.validate_grammar_with_warnings(_schema_grammar(copy.deepcopy(schema), ""))
    return messages[0] if messages else None


def _schema_grammar(schema: dict[str, Any], param: str) -> str:
    _prepare(schema, param)
    return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=COMPACT)  # type: ignore[arg-type]


def _prepare(schema: dict[str, Any], param: str) -> None:
    _check_numbers(schema, param)
    use_equivalents(schema, param)
    _check_schema(schema, param)


def _check_numbers(schema: dict[str, Any], param: str) -> None:
    for path, number in _integers(param, schema):
        if abs(number) > MAX_INTEGER:
            raise _beyond(path, f"is {number}", f"{MAX_INTEGER} up and down")


def _check_schema(schema: dict[str, Any], param: str) -> None:
    for path, inner in subschemas(param, schema):
        form, types = inner.get("format"), inner.get("type", "string")
        # llguidance passes over an unknown format wherever a value may be no string, too.
        if isinstance(form, str) and "string" in types and not _knows(form):
            reason = f"{path}.format: the format {short(form)} is not supported"
            raise RowError("unsupported_parameter", reason, f"{path}.format")
    references = set(_references(schema))
    # One that leads nowhere known counts as the whole schema.
    levels = sum(_depth(pointed_at(schema, reference) or schema) for reference in references)
    if levels > MAX_REFERENCE_LEVELS:
        reason = f"has {len(references)} different $ref, to schemas of {levels} levels together"
        raise _beyond(param, reason, f"{MAX_REFERENCE_LEVELS} levels")


@lru_cache(256)
def _knows(form: str) -> bool:
    grammar = LLMatcher.grammar_from_json_schema({"type": "string", "format": form})
    return not LLMatcher.validate_grammar(grammar)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (v for k, v in value.items() if k == "$ref" and isinstance(v, str))
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _references(item)


def _integers(path: str, value: Any) -> Iterator[tuple[str, int]]:
    if isinstance(value, int):
        yield path, value
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from _integers(f"{path}.{key}", item)
    for i, item in enumerate(value if isinstance(value, list) else ()):
        yield from _integers(f"{path}[{i}]", item)


def _depth(value: Any) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, items), default=0)


def _beyond(param: str | None, found: str, bound: str) -> RowError:
    return RowError("invalid_request", f"{param} {found}; allowed are at most {bound}", param)
