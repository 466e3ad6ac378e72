"""The messages of a request as one chat template takes them, and whether it showed all of them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.chat.call_ids import with_ids, with_names
from pipeline.chat.template_nature import TemplateNature, Turn, as_content, without_content
from pipeline.errors import RowError

WriteCalls = Callable[[Sequence[dict[str, Any]]], str | None]
"""The text in which a model calls functions, None where that isn't known. The calls are as in a message."""

_BLANKS = re.compile(r"\s+")


def turns_for(messages: Sequence[Turn], nature: TemplateNature, write_calls: WriteCalls) -> list[Turn]:
    """The messages as the template takes them.

    messages: as `Message.for_template` gives them. write_calls: for a template that doesn't write earlier
    calls itself. Raises RowError (unsupported_parameter) for calls that it can't show.
    """
    turns = list(messages) if nature.has_system else _system_into_next(messages)
    turns = with_names(turns) if nature.names_results else turns
    found: list[Turn] = []
    for i, turn in enumerate(with_ids(turns, nature.ids)):
        if turn.get("tool_calls"):
            at = f"messages[{i + len(messages) - len(turns)}]"
            found += _calling_turns(turn, nature, write_calls, at)
        else:
            found.append(_shown(turn, nature))
    return found


def check_shown(messages: Iterable[Turn], rendered: str, nature: TemplateNature) -> None:
    """Raises RowError where the rendered chat lacks what a user, a system message or a tool said."""
    bare = ""
    for i, message in enumerate(messages):
        content = message.get("content")
        if message["role"] == "assistant" or not content or content in rendered:
            continue
        bare = bare or _bare(rendered)
        if not any(_bare(text) in bare for text in _spellings(content)):
            raise _lost(i, message["role"], nature)


def _system_into_next(messages: Sequence[Turn]) -> list[Turn]:
    """As llama-server does for a template without a system turn: it begins the turn that follows."""
    turns = list(messages)
    while len(turns) > 1 and turns[0]["role"] == "system":
        system, following, *rest = turns
        text = "\n".join(filter(None, (system["content"], following["content"])))
        turns = [following | {"content": text}, *rest]
    return turns


def _calling_turns(turn: Turn, nature: TemplateNature, write_calls: WriteCalls, at: str) -> list[Turn]:
    if not nature.shows_calls:
        written = write_calls(turn["tool_calls"])
        if written is None:
            param = f"{at}.tool_calls"
            reason = f"the model's chat template knows no tools, so {param} would be lost"
            raise RowError("unsupported_parameter", reason, param)
        return [_shown(_with_text(turn, written), nature)]
    calls = [_call(call, nature) for call in turn["tool_calls"]]
    shown = _shown(turn | {"tool_calls": calls}, nature)
    if not turn["content"]:
        return [without_content(shown, nature.no_content)]
    if nature.text_before is None:
        reason = f"the model's chat template shows no text beside tool calls, so {at}.content would be lost"
        raise RowError("unsupported_parameter", reason, f"{at}.content")
    if not nature.text_before:
        return [shown]
    said = {name: value for name, value in shown.items() if name != "tool_calls"}
    return [
        said,
        without_content({k: v for k, v in shown.items() if k != nature.reasoning_key}, nature.no_content),
    ]


def _with_text(turn: Turn, written: str) -> Turn:
    text = "\n".join(filter(None, (turn["content"], written)))
    return {name: value for name, value in turn.items() if name != "tool_calls"} | {"content": text}


def _call(call: Turn, nature: TemplateNature) -> Turn:
    if nature.arguments == "object":
        return call
    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return call | {"function": call["function"] | {"arguments": arguments}}


def _shown(turn: Turn, nature: TemplateNature) -> Turn:
    if "reasoning_content" in turn and nature.reasoning_key != "reasoning_content":
        thought = turn["reasoning_content"]
        turn = {name: value for name, value in turn.items() if name != "reasoning_content"}
        turn[nature.reasoning_key] = thought
    form = nature.content.get(turn["role"], "text")
    return turn if turn["content"] is None else turn | {"content": as_content(turn["content"], form)}


def _spellings(text: str) -> tuple[str, ...]:
    """How templates write a text: as it is, as a string of JSON, or for HTML."""
    as_json = json.dumps(text, ensure_ascii=False)[1:-1]
    return (
        text,
        as_json,
        json.dumps(text)[1:-1],
        json.dumps(as_json, ensure_ascii=False)[1:-1],
        html.escape(text),
    )


def _bare(text: str) -> str:
    """Templates trim, lay lines out anew, and change the case."""
    return _BLANKS.sub("", text).casefold()


def _lost(number: int, role: str, nature: TemplateNature) -> RowError:
    param = f"messages[{number}].content"
    reason = f"the model's chat template does not show {param}, whose role is {role}"
    if role not in nature.content:
        reason += ", neither as a string nor as a list of text parts"
    cure = "name another template as model.chat_template, or leave the message out"
    return RowError("invalid_request", f"{reason}: {cure}", param)
