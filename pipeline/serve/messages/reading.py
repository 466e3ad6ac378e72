"""A request to Anthropic's Messages API, as a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pipeline.errors import RowError
from pipeline.request.json_values import plain, short
from pipeline.serve.asked import Asked, json_object, read_asked
from pipeline.serve.messages.turns import Record, Turns, refused, turns_of, wrong

_SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream")
_WITHOUT_MEANING = frozenset(("metadata", "service_tier", "cache_control", "betas"))
_OWN = ("messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_OTHER_NAMES = (
    (re.compile(r"\bstop\b(?=$|[\[ ])"), "stop_sequences"),
    (re.compile(r"tools\[(\d+)\]\.function\.parameters"), r"tools[\1].input_schema"),
    (re.compile(r"tools\[(\d+)\]\.function"), r"tools[\1]"),
    (re.compile(r"tool_choice\.function"), "tool_choice"),
    (re.compile(r"response_format(\.json_schema)?"), "output_config.format"),
    (re.compile(r"reasoning_effort"), "output_config.effort"),
)
"""OpenAI's places of what is wrong, and Anthropic's."""


def read_message(body: bytes, defaults: Mapping[str, Any], *, counting: bool = False) -> Asked:
    """counting: nothing is to be answered, and max_tokens may be absent. Raises RowError, with the field at
    fault by Anthropic's names."""
    fields = plain(json_object(body))
    for name in sorted(fields.keys() - _WITHOUT_MEANING - {*_SAME, *_OWN}):
        supported = ", ".join(sorted((*_SAME, *_OWN)))
        raise refused(name, f"is not supported; supported: {supported}")
    if not counting and "max_tokens" not in fields:
        raise wrong("max_tokens", "is required")
    turns = turns_of(fields.get("system"), fields.get("messages"))
    chat = {name: fields[name] for name in _SAME if name in fields} | {"messages": turns.messages}
    if "stop_sequences" in fields:
        chat["stop"] = _listed(fields["stop_sequences"], "stop_sequences")
    chat |= _tools(fields) | _thinking(fields.get("thinking")) | _output(fields.get("output_config"))
    with _named(turns):
        asked = read_asked("/v1/chat/completions", chat, {**defaults, "n": 1})
    return replace(asked, prefix="msg_")


def _tools(fields: Record) -> Record:
    tools = _listed(fields.get("tools", []), "tools")
    found: Record = {"tools": [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]} if tools else {}
    choice = fields.get("tool_choice")
    if choice is None:
        return found
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool":
        found["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in _CHOICES:
        found["tool_choice"] = _CHOICES[kind]
    else:
        raise wrong("tool_choice.type", f"must be one of auto, any, tool, none, not {short(kind)}")
    if choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _tool(tool: Any, place: str) -> Record:
    if not isinstance(tool, dict):
        raise wrong(place, f"must be a tool, not {short(tool)}")
    if tool.get("type", "custom") != "custom":
        raise refused(f"{place}.type", f"must be custom: {short(tool['type'])} runs at Anthropic")
    known = {"type", "name", "description", "input_schema", "strict", "cache_control"}
    for name in sorted(tool.keys() - known):
        raise refused(f"{place}.{name}", "is not supported")
    function = {name: tool[name] for name in ("name", "description", "strict") if name in tool}
    return {"type": "function", "function": function | {"parameters": tool.get("input_schema", {})}}


def _thinking(thinking: Any) -> Record:
    """Whether a model thinks is its template's to say; that it must not, a template can be told."""
    if thinking is None:
        return {}
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "adaptive", "disabled"):
        raise wrong("thinking.type", f"must be one of enabled, adaptive, disabled, not {short(kind)}")
    return {"chat_template_kwargs": {"enable_thinking": False}} if kind == "disabled" else {}


def _output(config: Any) -> Record:
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise wrong("output_config", f"must be an object, not {short(config)}")
    for name in sorted(config.keys() - {"format", "effort"}):
        raise refused(f"output_config.{name}", "is not supported; supported: format, effort")
    found: Record = {"reasoning_effort": config["effort"]} if "effort" in config else {}
    form = config.get("format")
    if form is None:
        return found
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise wrong("output_config.format.type", "must be json_schema")
    schema = {"name": "answer", "schema": form.get("schema")}
    return found | {"response_format": {"type": "json_schema", "json_schema": schema}}


def _listed(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(place, f"must be a list, not {short(value)}")
    return value


@contextmanager
def _named(turns: Turns) -> Iterator[None]:
    """What is wrong has its place in the client's own request."""

    def own(text: str) -> str:
        text = re.sub(r"messages\[(\d+)\]", lambda match: turns.places[int(match[1])], text)
        for pattern, name in _OTHER_NAMES:
            text = pattern.sub(name, text)
        return text

    try:
        yield
    except RowError as error:
        raise RowError(error.code, own(error.message), error.param and own(error.param)) from None
