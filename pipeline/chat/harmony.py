"""The channels in which gpt-oss writes: reasoning, calls and the answer as messages of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.chat.call_reader import Call
from pipeline.chat.call_values import arguments_text

MARKS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>")
FINAL = "<|channel|>final<|message|>"
"""Begins the answer itself, behind the prompt."""

_MESSAGE = re.compile(
    r"\s*(?P<role><\|start\|>[^<]*|(?:\s*to=[\w.-]+\s*)?)(?P<header>(?:<\|(?:channel|constrain)\|>[^<]*)*)<\|message\|>"
    r"(?P<body>(?s:.*?))(?P<end><\|end\|>|<\|call\|>|<\|return\|>|(?=<\|start\|>|<\|channel\|>)|\Z)"
)
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=(?:functions\.)?(?P<name>[\w.-]+)")


@dataclass(slots=True)
class Channels:
    """What an answer says in each of its channels."""

    reasoning: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


def read_channels(text: str, tools: frozenset[str], *, whole: bool = True) -> Channels | None:
    """None for a text that isn't in channels. tools: the functions that may be called; a message to
    anybody else is content, as it stands. whole: more may come if not, and what it could change is left out.
    """
    if "<|message|>" not in text:
        return None
    found = Channels()
    at = 0
    for message in _messages(text):
        found.content += _rest(text[at : message.start()])
        at = message.end()
        if whole or at < len(text) or message["end"] or not _is_call(message, tools):
            _take(message, tools, found)
    found.content += _rest(text[at:]) if whole else []
    return found


def _messages(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while message := _MESSAGE.search(text, at):
        yield message
        at = message.end()


def _take(message: re.Match[str], tools: frozenset[str], found: Channels) -> None:
    body = message["body"]
    recipient = _recipient(message)
    channel = _CHANNEL.findall(message["header"])[-1:]
    if recipient and tools:
        arguments = arguments_text(body)
        if arguments is not None and recipient["name"] in tools:
            found.calls.append(Call(recipient["name"], arguments))
        else:
            found.content.append(message[0].strip())
    elif channel == ["analysis"]:
        found.reasoning.append(body.strip())
    else:
        found.content.append(body)


def _is_call(message: re.Match[str], tools: frozenset[str]) -> bool:
    return bool(tools) and _recipient(message) is not None


def _recipient(message: re.Match[str]) -> re.Match[str] | None:
    # What is said to the assistant is said to nobody: gpt-oss begins some messages so.
    return _RECIPIENT.search((message["role"] + message["header"]).replace("to=assistant", ""))


def _rest(text: str) -> list[str]:
    return [text] if text.strip() else []
