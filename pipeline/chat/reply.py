"""What a chat's text means: content, reasoning and tool calls, told apart by the model's own marks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.chat.call_reader import Call, CallReader
from pipeline.chat.harmony import read_channels
from pipeline.chat.reasoning import Pair
from pipeline.chat.tool_forms import BARE, FUNCTIONARY, ToolForm

# functionary's prompt ends with the mark of a call, and "all" is the name of whom a text is for.
_FIRST_CALL = re.compile(r"^([\w.-]+\n\s*\{)")


@dataclass(frozen=True, slots=True)
class Reply:
    """content is None where there is nothing but calls; reasoning is None where there is none."""

    content: str | None
    reasoning: str | None = None
    calls: tuple[Call, ...] = ()


class ReplyReader:
    """Reads the texts of one model. What can't be read as a call stays content: no text is lost."""

    def __init__(
        self, form: ToolForm | None, reasoning: Pair | None = None, wrapper: Pair | None = None
    ) -> None:
        """form: how the model calls tools. reasoning: the marks around its reasoning. wrapper: the marks
        that some models put around the answer itself."""
        self.form = form or BARE
        self.calls = CallReader(self.form)
        self.reasoning = reasoning
        self.wrapper = wrapper

    def read(
        self,
        text: str,
        tools: Mapping[str, Any] | None = None,
        *,
        parallel: bool = True,
        guided: bool = False,
        opened: bool = False,
    ) -> Reply:
        """tools: the functions that may be called, by name, with the schemas of their parameters.
        parallel: whether there may be more than one call; later ones are dropped if not.
        guided: a constraint ruled from the first token, which leaves no reasoning.
        opened: the prompt itself ends where the model begins to think."""
        if self.form.kind == "harmony" and (reply := self._channels(text, tools or {}, parallel)):
            return reply
        thought, rest = (None, text) if guided else self._split(text, opened, bool(tools))
        rest = rest if guided else self.unwrapped(rest)
        calls, content = self.calls.read(rest, tools) if tools else ([], rest)
        if not calls:
            return Reply(rest, thought)
        return Reply(
            self.unwrapped(content).strip() or None, thought, tuple(calls if parallel else calls[:1])
        )

    def _channels(self, text: str, tools: Mapping[str, Any], parallel: bool) -> Reply | None:
        found = read_channels(text, frozenset(tools))
        if found is None:
            return None
        calls = tuple(found.calls if parallel else found.calls[:1])
        content = "\n".join(found.content)
        return Reply(
            (content.strip() or None) if calls else content, "\n".join(found.reasoning) or None, calls
        )

    def _split(self, text: str, opened: bool, tools: bool) -> tuple[str | None, str]:
        """Reasoning that isn't closed goes on to the first call, or to the end of the text."""
        if self.reasoning is None:
            return None, text
        begin, end = self.reasoning
        marked = text.lstrip().startswith(begin)
        if not marked and not opened:
            return None, text
        inside = text.lstrip().removeprefix(begin) if marked else text
        reasoning, closed, rest = inside.partition(end)
        if not closed and tools and (call := self.calls.starts(inside)) >= 0:
            reasoning, rest = inside[:call], inside[call:]
        return reasoning.strip() or None, rest.lstrip()

    def unwrapped(self, text: str) -> str:
        """Without the marks around the answer."""
        if self.form == FUNCTIONARY:
            return _FIRST_CALL.sub(r">>>\1", text.removeprefix("all\n"), count=1)
        if self.wrapper is None or not text.lstrip().startswith(self.wrapper[0]):
            return text
        begin, end = self.wrapper
        inside, _, after = text.lstrip().removeprefix(begin).partition(end)
        return inside.strip() + after
