"""The form in which a model calls tools, told from the way its chat template writes earlier calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from pipeline.chat.chat_template import TOOL_VARIABLES, ChatTemplate
from pipeline.chat.reasoning import PAIRS
from pipeline.chat.template_nature import (
    CALL_IDS,
    KEYS,
    NAME,
    RESULT,
    SAID,
    VALUES,
    TemplateNature,
    calls_text,
    said_text,
)
from pipeline.chat.tool_forms import (
    FUNCTIONARY,
    FUNCTOOLS,
    GEMMA,
    GRANITE,
    HARMONY,
    HERMES,
    LFM,
    LLAMA,
    MADE_UP,
    MISTRAL,
    ToolForm,
)

# The quotes and braces between are the template's own, where it writes the lines one by one.
_OBJECT = r"(?:\s|\\n|[\"'{}-])*\{\\?[\"']name"
# Asked first: forms that templates write in several ways, or that no probe can tell.
_SPECIAL: tuple[tuple[ToolForm, re.Pattern[str]], ...] = (
    (HARMONY, re.compile(r"(?s)<\|channel\|>commentary.*<\|message\|>")),
    (GEMMA, re.compile(r"<\|tool_call>call:")),
    (FUNCTIONARY, re.compile(r">>>all")),
    (FUNCTOOLS, re.compile(r"functools\[")),
)
# Asked last: templates that say how to call, and write no earlier calls themselves.
_DESCRIBED: tuple[tuple[ToolForm, re.Pattern[str]], ...] = (
    (HERMES, re.compile(f"<tool_call>{_OBJECT}")),
    (MISTRAL, re.compile(r"\[TOOL_CALLS\] ?\[")),
    (GRANITE, re.compile(r"<\|tool_call\|> followed by a JSON list")),
    (LLAMA, re.compile(r"\{\"name\": function name, \"parameters\": ")),
    (LFM, re.compile(r"<\|tool_call_start\|>|<\|tool_list_start\|>|List of tools: \[")),
)
_DECODER = json.JSONDecoder()
# A mark is one thing, however many letters of it two texts have in common.
_SEGMENTS = re.compile(r"<[^<>\n]*>|\[/?[A-Z_]+\]|(?s:.)")
_NUMBER = re.compile(r"(?<=[:\"])[0-9]+(?=[\"<])")


def form_of(template: ChatTemplate, nature: TemplateNature) -> ToolForm | None:
    """None where the template reads no tools, or has calls written in a form that isn't known."""
    if not template.reads.intersection(TOOL_VARIABLES):
        return None
    for form, mark in _SPECIAL:
        if mark.search(template.source):
            return form
    written = _written_form(template, nature) if nature.shows_calls else None
    return written or next((form for form, mark in _DESCRIBED if mark.search(template.source)), None)


def _written_form(template: ChatTemplate, nature: TemplateNature) -> ToolForm | None:
    one, two = (calls_text(template, nature, calls=count) for count in (1, 2))
    if one is None:
        return None
    said = said_text(template, nature) or ""
    at = min(len(_common_prefix(one, said)) if said else 0, one.index(NAME))
    tail = said[said.index(SAID) + len(SAID) :] if said else None
    probe = _Probe(_without_ids(one[at:]), _without_ids(two[at:] if two else ""), tail)
    form = probe.as_json() or probe.as_named() or probe.as_python() or probe.as_tagged()
    return form if form and not any(NAME in mark for mark in form.marks) else None


@dataclass(frozen=True, slots=True)
class _Probe:
    """one, two: what a template writes from where the assistant's answer begins, for one call and for two.
    tail: what it writes behind an answer that is text; None where that isn't known."""

    one: str
    two: str
    tail: str | None

    def as_json(self) -> ToolForm | None:
        found = _object(self.one, 0)
        if found is None:
            return None
        value, start, stop = found
        is_list = isinstance(value, list)
        keys = _keys(value[0] if is_list else value)
        if keys is None:
            return None
        form = replace(ToolForm("json", begin=_lead(self.one[:start]), is_list=is_list), **keys)
        again = _object(self.two, 0)
        if is_list:
            several = again is not None and len(again[0]) == 2
            return replace(form, end=self._after(stop).rstrip(), separator="," if several else None)
        second = again and _object(self.two, again[2])
        return self._marked(form, start, stop, (again[2], second[1]) if again and second else None)

    def as_named(self) -> ToolForm | None:
        name = self.one.index(NAME)
        found = _object(self.one, name + len(NAME))
        if found is None:
            return None
        form = ToolForm("named", "named", after_name=self.one[name + len(NAME) : found[1]])
        again = _object(self.two, self.two.find(NAME) + len(NAME))
        second = self.two.find(NAME, again[2]) if again else -1
        return self._marked(form, name, found[2], (again[2], second) if again and second >= 0 else None)

    def as_python(self) -> ToolForm | None:
        call = _PYTHON.search(self.one)
        if call is None:
            return None
        found = list(_PYTHON.finditer(self.two))
        between = self.two[found[0].end() : found[1].start()] if len(found) == 2 else None
        begin, end = _lead(self.one[: call.start()]), self._after(call.end()).rstrip()
        return ToolForm("python", "python", begin, end, separator=between)

    def as_tagged(self) -> ToolForm | None:
        name = self.one.index(NAME)
        places = list(_places(self.one, name))
        if places != sorted(places) or -1 in places:
            return None
        key, value, key2, value2 = places
        first = self.one[name + len(NAME) : key]
        seam = self.one[value + len(VALUES[0]) : key2]
        key_begin = _common_suffix(first, seam)
        value_end = seam[: len(seam) - len(key_begin)]
        stop = value2 + len(VALUES[1])
        if not key_begin.strip() or not value_end.strip() or not self.one.startswith(value_end, stop):
            return None
        form = ToolForm(
            "tagged",
            "tagged",
            after_name=first[: len(first) - len(key_begin)],
            key_begin=key_begin,
            key_end=self.one[key + len(KEYS[0]) : value],
            value_end=value_end,
        )
        first_stop = self.two.find(VALUES[1]) + len(VALUES[1] + value_end)
        second = self.two.find(NAME, first_stop)
        return self._marked(form, name, stop + len(value_end), (first_stop, second) if second >= 0 else None)

    def _marked(self, form: ToolForm, start: int, stop: int, again: tuple[int, int] | None) -> ToolForm:
        """The form with the marks around a call, and those around all calls.

        start, stop: of the call in `one`, from its name or object to its last argument. again: where the
        first call ends in `two`, and the second one starts.
        """
        before, after = self.one[:start], self._after(stop)
        if again is None:
            return replace(form, begin=_lead(before), end=after.rstrip())
        between = self.two[again[0] : again[1]]
        begin = _common_suffix(before, between)
        rest = between[: len(between) - len(begin)]
        end = _common_prefix(rest, after)
        lead = _lead(begin)
        section = (_lead(before[: len(before) - len(lead)]), after[len(end) :].rstrip())
        return replace(
            form,
            begin=lead,
            end=end,
            section=tuple(mark for mark in section if mark.strip()),
            separator=rest[len(end) :] + begin[: len(begin) - len(lead)],
        )

    def _after(self, stop: int) -> str:
        """What follows the call in `one`, up to the end of the turn."""
        rest = self.one[stop:]
        if RESULT in rest:  # The template shows a call only with its result behind.
            first = _SEGMENTS.match(rest.lstrip())
            return first[0] if first and first[0].startswith("</") else ""
        return "" if self.tail is None else rest[: len(rest) - len(_common_suffix(rest, self.tail))]


_PYTHON = re.compile(rf"{NAME}\({KEYS[0]} ?= ?[\"']{VALUES[0]}[\"'], ?{KEYS[1]} ?= ?[\"']{VALUES[1]}[\"']\)")


def _places(text: str, name: int) -> Iterator[int]:
    at = name
    for word in (KEYS[0], VALUES[0], KEYS[1], VALUES[1]):
        at = text.find(word, at)
        yield at


def _lead(text: str) -> str:
    """Without the blanks in front, and without reasoning that is empty."""
    text = text.lstrip()
    for begin, end in PAIRS:
        if text.startswith(begin) and text[len(begin) :].lstrip().startswith(end):
            return text[len(begin) :].lstrip().removeprefix(end).lstrip()
    return text


def _without_ids(text: str) -> str:
    for name in CALL_IDS:
        text = text.replace(name, MADE_UP)
    return _NUMBER.sub(MADE_UP, text)


def _common_prefix(one: str, two: str) -> str:
    pairs = zip(_SEGMENTS.findall(one), _SEGMENTS.findall(two), strict=False)
    return "".join(mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _common_suffix(one: str, two: str) -> str:
    pairs = zip(reversed(_SEGMENTS.findall(one)), reversed(_SEGMENTS.findall(two)), strict=False)
    return "".join([mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)][::-1])


def _object(text: str, start: int) -> tuple[Any, int, int] | None:
    """The first JSON object or list from `start` on that holds a call's arguments, and where it stands."""
    for match in re.compile(r"[{\[]").finditer(text, max(0, start)):
        try:
            value, stop = _DECODER.raw_decode(text, match.start())
        except ValueError:
            continue
        inside = text[match.start() : stop]
        if KEYS[0] in inside and VALUES[1] in inside:
            return value, match.start(), stop
    return None


def _keys(value: Any) -> dict[str, Any] | None:
    """The keys under which a call has its name and its arguments."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(NAME), dict):
        return {"by_name": True}
    for key, item in value.items():
        if isinstance(item, dict) and NAME in item.values():
            inner = _keys(item)
            return inner and inner | {"wrapper": key}
    name = next((key for key, item in value.items() if item == NAME), None)
    arguments = next((key for key, item in value.items() if isinstance(item, dict) and KEYS[0] in item), None)
    return {"name_key": name, "arguments_key": arguments} if name and arguments else None
