"""Tool calls found in what a model wrote. What can't be read as a call stays text: nothing is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.chat.call_values import (
    arguments_text,
    blank_end,
    gemma_at,
    is_unicode,
    json_at,
    python_calls,
    typed,
)
from pipeline.chat.tool_forms import MADE_UP, ToolForm

Tools = Mapping[str, Any]
"""The functions that may be called, by their names, with the JSON schemas of their parameters."""

# Of control tokens that begin a call, models show some and not others.
_BARE = re.compile(r"\s*(?:<\|python_tag\|>)?\s*")
_BETWEEN = re.compile(r"\s*[,;]?\s*")
_NAME = re.compile(r"\s*(?P<name>[\w.-]{1,64}?)\s*")
_WORD = re.compile(r"<[^<>]+>|[^<>\s]+")
_FLEXIBLE = re.compile(rf"(\s+|{re.escape(MADE_UP)}|string=\"true\")")
_ARGUMENTS = ("arguments", "parameters")
_BESIDE = {"id", "type", "index", "tool_call_id"}


@dataclass(frozen=True, slots=True)
class Call:
    """arguments: the text of a JSON object."""

    name: str
    arguments: str


Found = tuple[list[Call], int]
"""Calls, and where in the text they end."""


@dataclass(frozen=True)
class CallReader:
    """Reads the calls of one form."""

    form: ToolForm

    def read(self, text: str, tools: Tools) -> tuple[list[Call], str]:
        """The calls, and the text around them; no calls and all of the text where there are none."""
        calls, left = self.marked(text, tools) if self.is_marked else ([], [text])
        if calls:
            return calls, self._section.sub("", "".join(left)) if self.form.section else "".join(left)
        bare = self._bare(text, tools)
        return (bare, "") if bare else ([], text)

    def starts(self, text: str) -> int:
        """Where the first mark of a call stands; -1 where there is none."""
        found = [at for mark in self.first_marks if (at := text.find(mark)) >= 0]
        return min(found, default=-1)

    @property
    def first_marks(self) -> tuple[str, ...]:
        """With one of these begin all calls together; none where calls have no marks."""
        return (self.form.begin.strip(), *self.form.section[:1]) if self.form.begin else ()

    @cached_property
    def all_marks(self) -> tuple[str, ...]:
        """How the marks begin that may be cut out of a text with calls."""
        begin = self.form.begin.strip()
        words = [word for text in self.form.section for word in _WORD.findall(text)]
        marks = (begin, self._inner_begin, *words)
        return tuple({_FLEXIBLE.split(mark.strip(), maxsplit=1)[0] for mark in marks if mark})

    @property
    def _inner_begin(self) -> str:
        """Qwen3-Coder leaves out the outer mark of a call at times."""
        inner = self.form.begin.rstrip().rpartition(">")[2].strip()
        return inner if self.form.kind == "tagged" and inner.startswith("<") else ""

    @property
    def is_marked(self) -> bool:
        """A bracket alone could begin anything."""
        return self.form.begin.strip() not in ("", "[")

    def marked(self, text: str, tools: Tools) -> tuple[list[Call], list[str]]:
        """The calls between marks, and the pieces of text around them."""
        calls: list[Call] = []
        left: list[str] = []
        at = 0
        while begin := self._begin.search(text, at):
            found, stop = self._read_at(text, begin.end(), tools)
            left.append(text[at : begin.start()] if found else text[at : begin.end()])
            calls += found
            at = self._past_end(text, stop) if found else begin.end()
        return calls, [*left, text[at:]]

    def _read_at(self, text: str, at: int, tools: Tools) -> Found:
        match self.form.kind:
            case "json":
                return self._objects(text, at)
            case "named":
                return self._named(text, at)
            case "tagged":
                return self._tagged(text, at, tools)
            case "python":
                return self._python(text, at)
            case _:
                return self._gemma(text, at)

    def _objects(self, text: str, at: int, *, bare: bool = False) -> Found:
        """The calls that stand in a row from `at` on, objects or lists of them, and where they end."""
        calls: list[Call] = []
        stop, at = at, blank_end(text, at)
        while (value := json_at(text, at)) is not None:
            found = [self._object(item, bare=bare) for item in _items(value[0])]
            if not found or None in found:
                break
            calls += [call for call in found if call]
            stop = value[1]
            match = _BETWEEN.match(text, stop)
            assert match is not None, "it matches nothing, too"
            at = match.end()
        return calls, stop

    def _object(self, value: Any, *, bare: bool) -> Call | None:
        """None where it isn't one. A call may leave out its arguments, where it is marked."""
        form = self.form
        if not isinstance(value, dict):
            return None
        if form.by_name:
            return _call(*next(iter(value.items()))) if len(value) == 1 else None
        wrapper = form.wrapper or "function"
        if isinstance(value.get(wrapper), dict) and not value.keys() - {wrapper} - _BESIDE:
            value = value[wrapper]
        keys = [key for key in dict.fromkeys((form.arguments_key, *_ARGUMENTS)) if key in value]
        if len(keys) > 1 or value.keys() - {form.name_key, *keys} - _BESIDE or (bare and not keys):
            return None
        return _call(value.get(form.name_key), value[keys[0]] if keys else {})

    def _named(self, text: str, at: int) -> Found:
        head = self._head.match(text, at)
        value = json_at(text, blank_end(text, head.end())) if head else None
        call = _call(head["name"], value[0]) if head and value else None
        return ([call], value[1]) if call and value else ([], at)

    def _tagged(self, text: str, at: int, tools: Tools) -> Found:
        head = self._head.match(text, at)
        if head is None:
            return [], at
        stop, found = head.end(), {}
        schema = tools.get(head["name"])
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        while argument := self._argument.match(text, stop):
            key, value = argument["key"].strip(), argument["value"]
            is_text = argument.groupdict().get("text") == "true"
            known = properties.get(key) if isinstance(properties, Mapping) else None
            found[key] = value if is_text else typed(value, known)
            stop = argument.end()
        call = _call(head["name"], found) if self._end.match(text, stop) else None
        return ([call], stop) if call else ([], at)

    def _python(self, text: str, at: int) -> Found:
        end = self._whole_end.search(text, at)
        stop = end.start() if end else len(text)
        body = text[at:stop] if end else text[at:].rstrip().removesuffix("]")
        calls = [_call(name, value) for name, value in python_calls(body) or ()]
        return ([call for call in calls if call], stop) if calls and None not in calls else ([], at)

    def _gemma(self, text: str, at: int) -> Found:
        name = _NAME.match(text, at)
        brace = text.find("{", at)
        if name is None or brace < 0:
            return [], at
        value = gemma_at(text, brace)
        call = _call(text[at:brace].strip(), value[0]) if value else None
        return ([call], value[1]) if call and value else ([], at)

    def _bare(self, text: str, tools: Tools) -> list[Call]:
        """Calls without marks: the text is nothing else, and names tools that were offered."""
        start = _BARE.match(text)
        assert start is not None, "it matches nothing, too"
        calls, stop = self._objects(text, start.end(), bare=True)
        if not calls:
            calls, stop = _python_only(text, start.end()), len(text)
        whole = not text[stop:].strip()
        return calls if whole and all(call.name in tools for call in calls) else []

    def _past_end(self, text: str, at: int) -> int:
        """Behind the mark `end`, where it follows; models leave it out at the end of their answer."""
        end = self._whole_end.match(text, at) or self._end.match(text, at)
        return end.end() if end and self.form.end.strip() else at

    @cached_property
    def _begin(self) -> re.Pattern[str]:
        begin = self.form.begin
        found = _flexible(begin.strip())
        if inner := self._inner_begin:
            outer = begin[: begin.rindex(inner)].strip()
            found = rf"(?:{_flexible(outer)}\s*)?{_flexible(inner)}"
        return re.compile(found)

    @cached_property
    def _head(self) -> re.Pattern[str]:
        after = _flexible(self.form.after_name.strip())
        if not after and self.form.kind == "tagged":
            after = f"(?={_flexible(self.form.key_begin.strip())}|{self._end.pattern})"
        if not after and "\n" in self.form.after_name:
            after = r"(?<=\n)"
        return re.compile(f"{_NAME.pattern}{after}")

    @cached_property
    def _argument(self) -> re.Pattern[str]:
        form = self.form
        end, begin = form.key_end.rstrip(), form.value_end.lstrip()
        blank_after = re.escape(form.key_end[len(end) :])
        blank_before = re.escape(form.value_end[: len(form.value_end) - len(begin)])
        return re.compile(
            rf"\s*{_flexible(form.key_begin.strip())}(?P<key>[^\n]*?){_flexible(end)}(?:{blank_after})?"
            rf"(?P<value>(?s:.*?))(?:{blank_before})?{_flexible(begin)}"
        )

    @cached_property
    def _end(self) -> re.Pattern[str]:
        """The first mark of the end."""
        mark = self.form.end.strip()
        first = re.match(r"\S[^<\[]*", mark)
        return re.compile(rf"\s*{_flexible(first[0].strip())}" if first else r"\s*")

    @cached_property
    def _whole_end(self) -> re.Pattern[str]:
        return re.compile(rf"\s*{_flexible(self.form.end.strip())}")

    @cached_property
    def _section(self) -> re.Pattern[str]:
        marks = [mark for text in self.form.section for mark in _WORD.findall(text)]
        return re.compile("|".join(map(_flexible, marks)))


def _call(name: Any, arguments: Any) -> Call | None:
    text = arguments_text(arguments)
    if not isinstance(name, str) or not name or not is_unicode(name) or text is None:
        return None
    return Call(name, text)


def _python_only(text: str, at: int) -> list[Call]:
    """Calls as Llama 3.2 and 4 write them, `[name(key="value")]`, and Llama 3.1's `name.call(...)`."""
    calls = [_call(name.removesuffix(".call"), value) for name, value in python_calls(text[at:]) or ()]
    return [call for call in calls if call] if None not in calls else []


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]


def _flexible(mark: str) -> str:
    """A pattern for a mark: models are free with blanks, and make up ids."""
    parts = []
    for word in _FLEXIBLE.split(mark):
        if word.isspace():
            parts.append(r"\s*")
        elif word == MADE_UP:
            parts.append(r"[\w.:-]*?")
        elif word == 'string="true"':
            parts.append('string="(?P<text>true|false)"')
        else:
            parts.append(re.escape(word))
    return "".join(parts)
