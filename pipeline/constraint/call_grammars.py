"""Tool calls as rules of llguidance's Lark, in the form in which a model writes them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from pipeline.chat.tool_forms import BARE, FUNCTIONARY, MADE_UP, ToolForm
from pipeline.constraint.argument_grammars import arguments_rules
from pipeline.constraint.lark import Literal, json_rule, quoted


def tools_grammar(record: dict[str, Any], form: ToolForm, literal: Literal) -> str:
    """The Lark of a constraint of the kind "tools".

    Where the model's form can't keep to all of the schemas, calls are bare JSON.
    """
    if form == FUNCTIONARY:  # The prompt ends with the mark of the first call.
        form = replace(form, begin="", separator=None)
    calls = _calls(record, form, literal)
    if calls is None:
        form = BARE
        calls = _calls(record, form, literal) or []
    any_call = " | ".join(f"call_{i}" for i in range(len(record["calls"])))
    start = "calls | other" if "else" in record else "calls"
    rules = [f"start: {start}", f"calls: {_all_calls(record, form, literal)}", f"any_call: {any_call}"]
    other = [f"other: {json_rule(record['else'])}"] if "else" in record else []
    return "\n".join([*rules, *calls, *other])


def _calls(record: dict[str, Any], form: ToolForm, literal: Literal) -> list[str] | None:
    """The rules of each function's call; None where the form can't keep to a schema."""
    rules = []
    for i, call in enumerate(record["calls"]):
        if form.has_json:
            arguments, more = json_rule(call["schema"]), list[str]()
        elif form.kind == "gemma":
            return None
        else:
            found = arguments_rules(form, f"call_{i}", call["schema"], literal)
            if found is None:
                return None
            arguments, more = found
        rules += [f"call_{i}: {_call(form, call['name'], arguments, literal)}", *more]
    return rules


def _all_calls(record: dict[str, Any], form: ToolForm, literal: Literal) -> str:
    several = bool(record["several"]) and form.separator is not None
    many = f"any_call ({literal(form.separator or '')} any_call)*" if several else "any_call"
    if form.is_list:
        return f'{literal(form.begin)} "[" {many} "]" {literal(form.end)}'
    if form.kind == "python":
        return f"{literal(form.begin)} {many} {literal(form.end)}"
    if len(form.section) < 2:
        return many
    begin, end = form.section
    # What closes all calls; what ends the model's turn is for the model to say.
    closing = re.match(r"\s*<[^<>]*(?:/|end)[^<>]*>", end)
    return f"{literal(begin)} {many} {literal(closing[0] if closing else '')}"


def _call(form: ToolForm, name: str, arguments: str, literal: Literal) -> str:
    if form.kind == "python":
        return f'{quoted(name + "(")} ({arguments}) ")"'
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
