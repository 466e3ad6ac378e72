"""How chats with one model are written: what its chat template takes, and what its answers look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from pipeline.chat import harmony
from pipeline.chat.call_writer import write_calls
from pipeline.chat.chat_template import ChatTemplate
from pipeline.chat.growing_reply import GrowingReply
from pipeline.chat.reasoning import reasoning_marks, wrapper_marks
from pipeline.chat.reply import Reply, ReplyReader
from pipeline.chat.template_nature import SOME_TOOL, CallIds, TemplateNature, Turn, nature_of, tells_tools
from pipeline.chat.tool_forms import ToolForm
from pipeline.chat.tool_probe import form_of
from pipeline.chat.turns import check_shown, turns_for
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest


class ChatFormat:
    """One chat template, and all that is known of it. Safe for several threads."""

    def __init__(self, source: str | None, bos_text: str = "", eos_text: str = "") -> None:
        """source: Jinja; None where the model has no template."""
        self.source = source
        self._texts = bos_text, eos_text
        self._ends_open = lru_cache(64)(self._probe_end)

    @cached_property
    def template(self) -> ChatTemplate:
        """Raises RowError where there is none, or it isn't Jinja."""
        return ChatTemplate(self.source, *self._texts)

    @cached_property
    def nature(self) -> TemplateNature:
        """As `template`."""
        return nature_of(self.template)

    @cached_property
    def form(self) -> ToolForm | None:
        """How the model calls tools; None where it knows none, or calls them in a form that isn't known."""
        try:
            return form_of(self.template, self.nature)
        except RowError:
            return None

    @property
    def call_ids(self) -> CallIds:
        """The form of a call's id."""
        try:
            return self.nature.ids
        except RowError:
            return "any"

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the template tells the model of the tools that a request offers."""
        try:
            return tells_tools(self.template, self.nature)
        except RowError:
            return False

    def render(self, messages: Sequence[Turn], tools: Sequence[Turn], options: Mapping[str, Any]) -> str:
        """The prompt of a chat.

        messages, tools: as `for_template` gives them. options: more variables of the template. Raises
        RowError where the template refuses, or does not show what was said.
        """
        turns = turns_for(messages, self.nature, self._write)
        rendered = self.template.render(turns, tools, options)
        check_shown(messages, rendered, self.nature)
        return rendered

    def answer_lead(self, rendered: str) -> str:
        """What a prompt lacks where a constraint rules the answer from its first token on: the mark of the
        answer's own channel, or the end of the reasoning that the prompt has opened."""
        if self.form and self.form.kind == "harmony":
            return harmony.FINAL
        if self.reasoning and rendered.rstrip().endswith(self.reasoning[0]):
            return f"\n{self.reasoning[1]}\n\n"
        return ""

    def reply(self, request: ChatRequest, text: str, *, guided: bool) -> Reply:
        """What the text of an answer means. guided: a constraint ruled it from its first token on."""
        return self._reader.read(
            text,
            {tool.function.name: tool.function.parameters for tool in request.offered},
            parallel=request.parallel_tool_calls is not False,
            guided=guided,
            opened=self._opens(request),
        )

    def growing(self, request: ChatRequest, *, guided: bool) -> GrowingReply:
        """As `reply`, for a text that comes piece by piece."""
        return GrowingReply(
            self._reader,
            {tool.function.name: tool.function.parameters for tool in request.offered},
            parallel=request.parallel_tool_calls is not False,
            guided=guided,
            opened=self._opens(request),
        )

    def marks(self, *, tools: bool) -> tuple[str, ...]:
        """The texts whose control tokens belong to an answer's text. tools: whether some are offered."""
        if self.form and self.form.kind == "harmony":
            return harmony.MARKS
        found = [*(self.reasoning or ()), *(self._wrapper or ())]
        return (*found, *self.form.marks) if tools and self.form else tuple(found)

    def _write(self, calls: Sequence[Turn]) -> str | None:
        return write_calls(self.form, calls) if self.form else None

    def _opens(self, request: ChatRequest) -> bool:
        if self.reasoning is None:
            return False
        options = json.dumps(request.template_options, sort_keys=True)
        return self._ends_open(options, request.messages[-1].role == "tool", bool(request.offered))

    def _probe_end(self, options: str, after_result: bool, tools: bool) -> bool:
        """Whether the prompt itself ends where the model begins to think."""
        call = {"id": "abcdef123", "type": "function", "function": {"name": "f", "arguments": {}}}
        messages: list[Turn] = [{"role": "user", "content": "?"}]
        if after_result:
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "abcdef123", "content": "?"},
            ]
        offered = [SOME_TOOL] if tools else []
        try:
            turns = turns_for(messages, self.nature, self._write)
            rendered = self.template.render(turns, offered, json.loads(options))
        except RowError:
            return False
        return self.reasoning is not None and rendered.rstrip().endswith(self.reasoning[0])

    @cached_property
    def reasoning(self) -> tuple[str, str] | None:
        """The marks around the model's reasoning; None where it has none."""
        return reasoning_marks(self.source or "")

    @cached_property
    def _wrapper(self) -> tuple[str, str] | None:
        return wrapper_marks(self.source or "")

    @cached_property
    def _reader(self) -> ReplyReader:
        return ReplyReader(self.form, self.reasoning, self._wrapper)


class ChatFormats:
    """The chat templates of a model: its main one, and one for requests with tools where it has such."""

    def __init__(
        self, main: str | None, tool_use: str | None = None, bos_text: str = "", eos_text: str = ""
    ) -> None:
        self._main = ChatFormat(main or tool_use, bos_text, eos_text)
        self._tool_use = ChatFormat(tool_use, bos_text, eos_text) if main and tool_use else self._main

    @classmethod
    def of_model(cls, vocabulary: Vocabulary, template: str | None = None) -> ChatFormats:
        """template: the job's own, which stands for both of the model's."""
        texts = vocabulary.bos_text, vocabulary.eos_text
        if template is not None:
            return cls(template, None, *texts)
        return cls(vocabulary.chat_template, vocabulary.tool_template, *texts)

    def of(self, request: ChatRequest) -> ChatFormat:
        """The one that llama-server takes for such a request."""
        return self.for_tools if request.offered else self._main

    @property
    def for_tools(self) -> ChatFormat:
        return self._tool_use
