"""How models write tool calls, told from their chat templates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import TemplateError, nodes

from pipeline.text.chat_template import environment


@dataclass(frozen=True, slots=True)
class ToolForm:
    """A call is begin, a JSON object {name_key: ..., arguments_key: {...}}, end.

    is_list: between begin and end stands a JSON list of such objects instead. separator: what stands
    between two calls, inside the list or between one's end and the other's begin; None where an answer
    has one call at most. Models are free with the blanks around begin, end and separator.
    """

    name: str
    begin: str = ""
    end: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    is_list: bool = False
    separator: str | None = None


HERMES = ToolForm("hermes", "<tool_call>\n", "\n</tool_call>", separator="\n")
LLAMA = ToolForm("llama", arguments_key="parameters")
MISTRAL = ToolForm("mistral", "[TOOL_CALLS]", is_list=True, separator=",")
GRANITE = ToolForm("granite", "<|tool_call|>", is_list=True, separator=",")
GENERIC = ToolForm("generic")
"""The form of a template that hands on tools, but in none of the ways above."""

# The quotes and braces between are the template's own, where it writes the lines one by one.
_OBJECT = r"(?:\s|\\n|[\"'{}-])*\{\\?[\"']name"
# What only a template of that form holds.
_MARKS: tuple[tuple[ToolForm, re.Pattern[str]], ...] = (
    (HERMES, re.compile(f"<tool_call>{_OBJECT}")),
    (MISTRAL, re.compile(r"\[TOOL_CALLS\] ?\[")),
    (GRANITE, re.compile(r"<\|tool_call\|> followed by a JSON list")),
    (LLAMA, re.compile(r"\{\"name\": function name, \"parameters\": ")),
)


@lru_cache(16)
def form_of(template: str | None) -> ToolForm | None:
    """The form in which a model with this chat template calls tools; None where it knows no tools."""
    if not template or not _knows_tools(template):
        return None
    return next((form for form, mark in _MARKS if mark.search(template)), GENERIC)


def _knows_tools(template: str) -> bool:
    try:
        names = environment().parse(template).find_all(nodes.Name)
        return any(name.name == "tools" and name.ctx == "load" for name in names)
    except TemplateError:
        return False
