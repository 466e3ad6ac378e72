"""Anthropic's messages as OpenAI's: a message with results of tools becomes several."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import RowError
from pipeline.request.json_values import short

Record = dict[str, Any]

_WITHOUT_MEANING = frozenset(("type", "cache_control", "citations", "caller"))


@dataclass(slots=True)
class Turns:
    """messages: OpenAI's. places: where each of them comes from, as Anthropic's client names it."""

    messages: list[Record] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(self, place: str, **message: Any) -> None:
        self.messages.append(message)
        self.places.append(place)


def turns_of(system: Any, messages: Any) -> Turns:
    """Raises RowError for what chats can't hold, with its place."""
    found = Turns()
    if system is not None:
        text = _text(system, "system")
        if text:
            found.add("system", role="system", content=text)
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", f"must be a list of at least one message, not {short(messages)}")
    for at, message in enumerate(messages):
        _add(found, message, f"messages[{at}]")
    if found.messages[-1]["role"] == "assistant":
        raise wrong(f"messages[{len(messages) - 1}].role", "must be user: an answer begun is not continued")
    return found


def _add(found: Turns, message: Any, place: str) -> None:
    if not isinstance(message, dict):
        raise wrong(place, f"must be a message, not {short(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise wrong(f"{place}.role", f"must be user or assistant, not {short(role)}")
    for name in message.keys() - {"role", "content", "id", "type"}:
        raise refused(f"{place}.{name}", "is not supported in a message")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise wrong(f"{place}.content", f"must be a string or a list of blocks, not {short(content)}")
    blocks = [_block(block, f"{place}.content[{at}]") for at, block in enumerate(content)]
    if role == "user":
        _add_user(found, blocks, place)
    else:
        _add_assistant(found, blocks, place)


def _add_user(found: Turns, blocks: list[Record], place: str) -> None:
    """Results come before what is said beside them; what follows another user's message joins it."""
    for at, block in enumerate(blocks):
        if block["type"] == "tool_result":
            _add_result(found, block, f"{place}.content[{at}]")
    texts = list(_texts(blocks, place, ("text", "tool_result")))
    if not texts and any(block["type"] == "tool_result" for block in blocks):
        return
    if found.messages and found.messages[-1]["role"] == "user":
        texts = [found.messages.pop()["content"], *texts]
        place = found.places.pop()
    found.add(place, role="user", content="\n".join(texts))


def _add_result(found: Turns, block: Record, place: str) -> None:
    content = "" if block.get("content") is None else _text(block["content"], f"{place}.content")
    if block.get("is_error"):
        content = f"Error: {content}"
    found.add(place, role="tool", tool_call_id=_string(block, "tool_use_id", place), content=content)


def _add_assistant(found: Turns, blocks: list[Record], place: str) -> None:
    kinds = ("text", "tool_use", "thinking", "redacted_thinking")
    texts = list(_texts(blocks, place, kinds))
    calls = [
        _call(block, f"{place}.content[{at}]")
        for at, block in enumerate(blocks)
        if block["type"] == "tool_use"
    ]
    thoughts = [str(block.get("thinking", "")) for block in blocks if block["type"] == "thinking"]
    message: Record = {"role": "assistant", "content": "\n".join(texts) if texts or not calls else None}
    if calls:
        message["tool_calls"] = calls
    if any(thoughts):
        message["reasoning_content"] = "\n".join(thoughts)
    found.add(place, **message)


def _call(block: Record, place: str) -> Record:
    given = block.get("input", {})
    if not isinstance(given, dict):
        raise wrong(f"{place}.input", f"must be an object, not {short(given)}")
    function = {"name": _string(block, "name", place), "arguments": json.dumps(given, ensure_ascii=False)}
    return {"id": _string(block, "id", place), "type": "function", "function": function}


def _texts(blocks: list[Record], place: str, kinds: tuple[str, ...]) -> Iterator[str]:
    for at, block in enumerate(blocks):
        if block["type"] == "text":
            yield _string(block, "text", f"{place}.content[{at}]")
        elif block["type"] not in kinds:
            reason = f"{short(block['type'])} blocks are not supported here; supported: {', '.join(kinds)}"
            raise refused(f"{place}.content[{at}].type", reason)


def _text(value: Any, place: str) -> str:
    """A string, or blocks of text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise wrong(place, f"must be a string or a list of text blocks, not {short(value)}")
    blocks = [_block(block, f"{place}[{at}]") for at, block in enumerate(value)]
    for at, block in enumerate(blocks):
        if block["type"] != "text":
            reason = f"{short(block['type'])} blocks are not supported here; supported: text"
            raise refused(f"{place}[{at}].type", reason)
    return "\n".join(_string(block, "text", f"{place}[{at}]") for at, block in enumerate(blocks))


_FIELDS = {
    "text": {"text"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
}


def _block(block: Any, place: str) -> Record:
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise wrong(place, f'must be a block such as {{"type": "text", "text": ...}}, not {short(block)}')
    known = _FIELDS.get(block["type"])
    given = {name: value for name, value in block.items() if value is not None}
    for name in sorted(given.keys() - _WITHOUT_MEANING - known) if known else ():
        raise refused(f"{place}.{name}", "is not supported")
    return given


def _string(block: Record, name: str, place: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise wrong(f"{place}.{name}", f"must be a string, not {short(value)}")
    return value


def wrong(place: str, reason: str) -> RowError:
    return RowError("invalid_request", f"{place} {reason}", place)


def refused(place: str, reason: str) -> RowError:
    return RowError("unsupported_parameter", f"{place} {reason}", place)
