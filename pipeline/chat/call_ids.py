"""The ids of tool calls, in the form that a model's chat template takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from string import ascii_letters, digits
from typing import Any

from pipeline.chat.template_nature import CallIds

_LETTERS = ascii_letters + digits
_NINE = re.compile(r"[A-Za-z0-9]{9}")


def nine_letters(name: str) -> str:
    """Nine letters and digits, the same ones for the same name; a name that is in this form stays."""
    if _NINE.fullmatch(name):
        return name
    number = int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest())
    found = ""
    for _ in range(9):
        number, place = divmod(number, len(_LETTERS))
        found += _LETTERS[place]
    return found


def with_ids(messages: Iterable[dict[str, Any]], form: CallIds) -> list[dict[str, Any]]:
    """The messages with the ids of their calls, and of the results, in that form.

    A call without an id gets one, and a result without an id belongs to the first call that has none yet.
    """
    if form == "any":
        return list(messages)
    renamed: dict[str, str] = {}
    waiting: list[str] = []
    found = []
    count = 0
    for message in messages:
        if calls := message.get("tool_calls"):
            named = []
            for call in calls:
                old = call.get("id") or str(count)
                new = nine_letters(old) if form == "nine" else f"functions.{call['function']['name']}:{count}"
                renamed[old] = new
                waiting.append(new)
                named.append(call | {"id": new})
                count += 1
            message = message | {"tool_calls": named}
        elif message["role"] == "tool":
            message = message | {"tool_call_id": _result_id(message, renamed, waiting)}
        found.append(message)
    return found


def with_names(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, each result with the name of the function that was called."""
    names: dict[str | None, str] = {}
    found = []
    for message in messages:
        for call in message.get("tool_calls") or ():
            names[call.get("id")] = call["function"]["name"]
        name = names.get(message.get("tool_call_id"))
        found.append({"name": name} | message if message["role"] == "tool" and name else message)
    return found


def _result_id(message: dict[str, Any], renamed: dict[str, str], waiting: list[str]) -> str:
    old = message.get("tool_call_id")
    new = renamed.get(old, nine_letters(old)) if old else waiting[0] if waiting else nine_letters("")
    if new in waiting:
        waiting.remove(new)
    return new
