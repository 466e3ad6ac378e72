"""A chat's text while it grows: how much of what it means is certain, whatever comes behind it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.chat.bare_calls import can_become_bare
from pipeline.chat.call_reader import Call
from pipeline.chat.harmony import MARKS, read_channels
from pipeline.chat.reply import Reply, ReplyReader
from pipeline.chat.tool_forms import FUNCTIONARY
from pipeline.engine.text import begun

# The beginning of a text of functionary's that may still turn out to be the name of a call.
_NAME = re.compile(r"[\w.-]*|[\w.-]+\n\s*")


class GrowingReply:
    """Reads one reply. The text of a call is withheld until the next one begins, or the reply ends."""

    def __init__(
        self,
        reader: ReplyReader,
        tools: Mapping[str, Any],
        *,
        parallel: bool,
        guided: bool,
        opened: bool,
    ) -> None:
        """As `ReplyReader.read`."""
        self._reader = reader
        self._tools = tools
        self._parallel = parallel
        self._guided = guided
        self._opened = opened
        self._is_prose = False

    def certain(self, text: str) -> Reply:
        """What the whole reply begins with in any case: content, reasoning and calls. content is None where
        nothing of it is certain. text: the reply so far."""
        if self._reader.form.kind == "harmony":
            return self._channels(text)
        thought, rest = (None, text) if self._guided else self._split(text)
        plain = rest if rest is None or self._guided else self._unwrapped(rest)
        if plain is None or not self._tools:
            return Reply(plain, thought)
        return Reply(self._content(plain), thought, self._calls(plain))

    def _channels(self, text: str) -> Reply:
        found = read_channels(text[: len(text) - begun(text, MARKS)], frozenset(self._tools), whole=False)
        if found is None:
            # Behind the beginning of the answer's own channel, which a prompt with a constraint has.
            bare = self._guided and not self._tools
            return Reply(text[: first_mark(text, MARKS)] if bare else None)
        content: str | None = "\n".join(found.content)
        if self._tools:
            content = _before_calls(content or "")
        calls = tuple(found.calls if self._parallel else found.calls[:1])
        return Reply(content, "\n".join(found.reasoning) or None, calls)

    def _split(self, text: str) -> tuple[str | None, str | None]:
        """The reasoning, and the rest once it has begun."""
        if self._reader.reasoning is None:
            return None, text
        begin, end = self._reader.reasoning
        start = text.lstrip()
        marked = start.startswith(begin)
        if not marked and begin.startswith(start):
            return None, None
        if not marked and not self._opened:
            return None, text
        inside = start.removeprefix(begin) if marked else text
        thought, closed, rest = inside.partition(end)
        if closed:
            return thought.strip() or None, rest.lstrip()
        marks = (end, *self._reader.calls.first_marks) if self._tools else (end,)
        return inside[: first_mark(inside, marks)].strip() or None, None

    def _unwrapped(self, text: str) -> str | None:
        """Without the marks around the answer; None while they may still come."""
        if self._reader.form == FUNCTIONARY:
            undecided = _NAME.fullmatch(text.removeprefix("all\n"))
            return None if undecided else self._reader.unwrapped(text)
        if self._reader.wrapper is None:
            return text
        begin, end = self._reader.wrapper
        start = text.lstrip()
        if not start.startswith(begin):
            return None if begin.startswith(start) else text
        inside = start.removeprefix(begin)
        if end in inside:
            return self._reader.unwrapped(text)
        return inside[: len(inside) - begun(inside, (end,))].strip()

    def _content(self, text: str) -> str | None:
        """What stands before the first call."""
        self._is_prose = self._is_prose or not can_become_bare(text)
        if not self._is_prose:
            return None
        calls = self._reader.calls
        if not calls.is_marked:
            return text
        if self._reader.form == FUNCTIONARY:
            return None
        content = _before_calls(text[: first_mark(text, calls.all_marks)])
        wrapper = self._reader.wrapper
        # What is left beside calls may be wrapped once more.
        wrapped = wrapper and content and (content.startswith(wrapper[0]) or wrapper[0].startswith(content))
        return None if wrapped else content

    def _calls(self, text: str) -> tuple[Call, ...]:
        """All calls but the last one, of which more may come."""
        if self._reader.form.kind == "python" or not self._reader.calls.is_marked:
            return ()
        calls = self._reader.calls.marked(text, self._tools)[0][:-1]
        return tuple(calls if self._parallel else calls[:1])


def first_mark(text: str, marks: Sequence[str]) -> int:
    """Where the first mark begins, or may begin at the end of the text; the text's length where none does."""
    found = [at for mark in marks if (at := text.find(mark)) >= 0]
    return min([*found, len(text) - begun(text, marks)])


def _before_calls(text: str) -> str | None:
    """Beside calls, blanks around the content are left out; without any, they stay."""
    return None if text[:1].isspace() else text.rstrip()
