"""What a chat's text means: content, reasoning and tool calls, told apart by the model's own marks."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.errors import RowError
from pipeline.text.chat_template import ChatTemplate
from pipeline.text.tool_calls import GENERIC, ToolForm, form_of

_OPEN, _CLOSE = "<think>", "</think>"
# Of control tokens that begin a call, models show some and not others.
_BARE = re.compile(r"\s*(?:<\|python_tag\|>)?\s*")
_BETWEEN = re.compile(r"\s*[,;]?\s*")
_BLANK = re.compile(r"\s*")
_ARGUMENTS = ("arguments", "parameters")
_BESIDE = {"id", "type"}


@dataclass(frozen=True, slots=True)
class Call:
    """arguments: the text of a JSON object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """content is None where there is nothing but calls; reasoning is None where there is none."""

    content: str | None
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()


class ReplyReader:
    """Reads the texts of one model. What can't be read as a call stays content: no text is lost."""

    def __init__(self, template: str | None) -> None:
        """template: the model's chat template (Jinja), which tells how it marks reasoning and calls."""
        self._form = form_of(template) or GENERIC
        self._reasons = bool(template) and _OPEN in str(template)
        self._opened = self._reasons and _opens(template)

    def read(
        self, text: str, tools: Collection[str] = (), *, parallel: bool = True, guided: bool = False
    ) -> Reply:
        """tools: the names that may be called. parallel: whether there may be more than one call; later
        ones are dropped if not. guided: a constraint ruled from the first token, which leaves no reasoning.
        """
        reasoning, rest = (None, text) if guided else self._reasoning(text)
        calls, content = self._calls(rest, tools) if tools else ([], rest)
        if not calls:
            return Reply(rest, reasoning)
        return Reply(content.strip() or None, reasoning, tuple(calls if parallel else calls[:1]))

    def _reasoning(self, text: str) -> tuple[str | None, str]:
        """Reasoning that isn't closed goes on to the end of the text."""
        marked = self._reasons and text.lstrip().startswith(_OPEN)
        if not marked and not self._opened:
            return None, text
        inside = text.lstrip().removeprefix(_OPEN) if marked else text
        reasoning, _, rest = inside.partition(_CLOSE)
        return reasoning.strip() or None, rest.lstrip()

    def _calls(self, text: str, tools: Collection[str]) -> tuple[list[Call], str]:
        """The calls and the text around them; no calls and all of the text where there are none."""
        calls, left = self._marked(text) if self._form.begin else ([], [text])
        if calls:
            return calls, "".join(left)
        bare = self._bare(text, tools)
        return (bare, "") if bare else ([], text)

    def _marked(self, text: str) -> tuple[list[Call], list[str]]:
        begin, end = self._form.begin.strip(), self._form.end.strip()
        calls: list[Call] = []
        left: list[str] = []
        at = 0
        while (start := text.find(begin, at)) >= 0:
            stop = start + len(begin)
            found, stop = _run(text, stop, self._form)
            left.append(text[at:start] if found else text[at:stop])
            calls += found
            at = _past(text, stop, end) if found else stop
        return calls, [*left, text[at:]]

    def _bare(self, text: str, tools: Collection[str]) -> list[Call]:
        """Calls without marks: the text is nothing else, and names tools that were offered."""
        start = _BARE.match(text)
        assert start is not None, "it matches nothing, too"
        calls, stop = _run(text, start.end(), self._form, bare=True)
        whole = not text[stop:].strip()
        return calls if whole and all(call.name in tools for call in calls) else []


def _opens(template: str | None) -> bool:
    """Whether the prompt itself ends where the model begins to think."""
    try:
        rendered = ChatTemplate(template, "", "").render([{"role": "user", "content": "?"}])
    except RowError:
        return False
    return rendered.rstrip().endswith(_OPEN)


def _run(text: str, at: int, form: ToolForm, *, bare: bool = False) -> tuple[list[Call], int]:
    """The calls that stand in a row from `at` on, objects or lists of them, and where they end."""
    calls: list[Call] = []
    stop, at = at, _end(_BLANK, text, at)
    while (value := _json(text, at)) is not None:
        found = list(_calls_of(value[0], form, bare=bare))
        if not found or None in found:
            break
        calls += [call for call in found if call]
        stop = value[1]
        at = _end(_BETWEEN, text, stop)
    return calls, stop


def _calls_of(value: Any, form: ToolForm, *, bare: bool) -> Iterator[Call | None]:
    for item in value if isinstance(value, list) else [value]:
        yield _call(item, form, bare=bare)


def _call(value: Any, form: ToolForm, *, bare: bool) -> Call | None:
    """None where it isn't one. A call with no arguments may leave them out, unless nothing else marks it."""
    if not isinstance(value, dict):
        return None
    keys = [key for key in dict.fromkeys((form.arguments_key, *_ARGUMENTS)) if key in value]
    if len(keys) > 1 or value.keys() - {form.name_key, *keys} - _BESIDE or (bare and not keys):
        return None
    name = value.get(form.name_key)
    arguments = _arguments(value[keys[0]]) if keys else "{}"
    if not isinstance(name, str) or not name or not _is_unicode(name) or arguments is None:
        return None
    return Call(name, arguments)


def _arguments(value: Any) -> str | None:
    """Some models write the arguments as a string of JSON, as OpenAI does."""
    if isinstance(value, str):
        inner = _json(value, _end(_BLANK, value, 0))
        whole = inner is not None and not value[inner[1] :].strip()
        value = inner[0] if inner is not None and whole else None
    if not isinstance(value, dict):
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text if _is_unicode(text) else json.dumps(value)
    except (ValueError, RecursionError):
        return None


def _json(text: str, at: int) -> tuple[Any, int] | None:
    """The object or list that begins at `at`, and its end; None where none does."""
    if not text.startswith(("{", "["), at):
        return None
    try:
        value: tuple[Any, int] = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    return value


def _past(text: str, at: int, end: str) -> int:
    """Behind the mark `end`, where it follows; models leave it out at the end of their answer."""
    found = _end(_BLANK, text, at)
    return found + len(end) if end and text.startswith(end, found) else at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None, "it matches nothing, too"
    return match.end()


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a character, which no column of text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


# Models break lines inside strings.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_refuse)
