"""Tool calls as rules of llguidance's Lark, in the form in which a model writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pipeline.text.tool_forms import BARE, FUNCTIONARY, MADE_UP, ToolForm

Literal = Callable[[str], str]
"""A text as an expression of Lark, its control tokens as such."""


def quoted(text: str) -> str:
    """`text` as a string of Lark."""
    # Lark reads no DEL inside a string, which JSON leaves as it is.
    return json.dumps(text).replace("\x7f", "\\u007f")


def tools_grammar(record: dict[str, Any], form: ToolForm, literal: Literal, overrides: dict[str, Any]) -> str:
    """The Lark of a constraint of the kind "tools".

    Where a form isn't made of JSON, calls are bare JSON: the schema is kept to whatever the form.
    overrides: llguidance's options for JSON.
    """
    if form.kind not in ("json", "named", "harmony"):
        form = BARE
    if form == FUNCTIONARY:  # The prompt ends with the mark of the first call.
        form = replace(form, begin="", separator=None)
    calls = [
        f"call_{i}: {_call(form, call['name'], _json(call['schema'], overrides), literal)}"
        for i, call in enumerate(record["calls"])
    ]
    any_call = " | ".join(f"call_{i}" for i in range(len(calls)))
    start = "calls | other" if "else" in record else "calls"
    rules = [
        f"start: {start}",
        f"calls: {_all_calls(record, form, literal)}",
        f"any_call: {any_call}",
        *calls,
    ]
    if "else" in record:
        rules.append(f"other: {_json(record['else'], overrides)}")
    return "\n".join(rules)


def _all_calls(record: dict[str, Any], form: ToolForm, literal: Literal) -> str:
    several = bool(record["several"]) and form.separator is not None
    many = f"any_call ({literal(form.separator or '')} any_call)*" if several else "any_call"
    if form.is_list:
        return f'{literal(form.begin)} "[" {many} "]" {literal(form.end)}'
    return f"{literal(form.section[0])} {many}" if len(form.section) == 2 else many


def _call(form: ToolForm, name: str, arguments: str, literal: Literal) -> str:
    if form.kind != "json":
        begin, after = _marks(f"{form.begin}{name}{form.after_name}", literal), literal(form.end)
        return f"{begin} {arguments} {after}"
    head, tail = _object(form, name)
    call = f"{quoted(head)} {arguments} {quoted(tail)}"
    return call if form.is_list else f"{literal(form.begin)} {call} {literal(form.end)}"


def _marks(text: str, literal: Literal) -> str:
    """Marks in which the model makes up an id: a number behind a colon, nine letters and digits else."""
    first, *rest = text.split(MADE_UP)
    found, before = literal(first), first
    for part in rest:
        pattern = "/[0-9]/" if before.endswith(":") else "/[A-Za-z0-9]{9}/"
        found, before = f"{found} {pattern} {literal(part)}", part
    return found


def _object(form: ToolForm, name: str) -> tuple[str, str]:
    """What stands before and behind the arguments."""
    key = json.dumps(name)
    head = f"{{{key}:" if form.by_name else f'{{"{form.name_key}":{key},"{form.arguments_key}":'
    return (f'{{"{form.wrapper}":{head}', "}}") if form.wrapper else (head, "}")


def _json(schema: dict[str, Any], overrides: dict[str, Any]) -> str:
    return f"%json {json.dumps(schema | {'x-guidance': overrides})}"
