"""How models write tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MADE_UP = "{id}"
"""In a mark: an id or a number that the model makes up."""
CallKind = Literal["json", "named", "tagged", "python", "gemma", "harmony"]


@dataclass(frozen=True, slots=True)
class ToolForm:
    """The marks of one model's calls.

    begin, end: what stands around each call; with is_list, around the list of all of them.
    section: marks around all calls together, which say nothing by themselves.
    separator: what stands between two calls; None where an answer has one call at most.

    kind "json": an object {name_key: NAME, arguments_key: ARGUMENTS}, or a JSON list of them.
    by_name: {NAME: ARGUMENTS} instead. wrapper: the key under which the object stands in another one.
    kind "named": begin NAME after_name ARGUMENTS end, the arguments as JSON. "{id}" in begin or after_name
    stands for an id that the model makes up.
    kind "tagged": begin NAME after_name, then key_begin KEY key_end VALUE value_end for each argument, end.
    A string stands there as it is, another value as JSON.
    kind "python": begin NAME(KEY=VALUE, ...), ... end. kind "gemma": begin NAME{KEY:VALUE,...} end.
    kind "harmony": messages in channels, as gpt-oss writes them.
    Models are free with the blanks around all marks.
    """

    name: str
    kind: CallKind = "json"
    begin: str = ""
    end: str = ""
    section: tuple[str, ...] = ()
    separator: str | None = None
    is_list: bool = False
    name_key: str = "name"
    arguments_key: str = "arguments"
    by_name: bool = False
    wrapper: str = ""
    after_name: str = ""
    key_begin: str = ""
    key_end: str = ""
    value_end: str = ""

    @property
    def has_json(self) -> bool:
        """Whether the arguments are a JSON object."""
        return self.kind in ("json", "named", "harmony")

    @property
    def marks(self) -> tuple[str, ...]:
        """All texts that tell a call from other text."""
        own = (self.begin, self.end, self.after_name, self.key_begin, self.key_end, self.value_end)
        return tuple(filter(None, (*own, *self.section)))


HERMES = ToolForm("hermes", begin="<tool_call>\n", end="\n</tool_call>", separator="\n")
LLAMA = ToolForm("llama", arguments_key="parameters")
MISTRAL = ToolForm("mistral", begin="[TOOL_CALLS]", is_list=True, separator=",")
GRANITE = ToolForm("granite", begin="<|tool_call|>", is_list=True, separator=",")
LFM = ToolForm("lfm", "python", begin="<|tool_call_start|>[", end="]<|tool_call_end|>", separator=", ")
FUNCTOOLS = ToolForm("functools", begin="functools", is_list=True, separator=",")
GEMMA = ToolForm("gemma", "gemma", begin="<|tool_call>call:", end="<tool_call|>", separator="")
FUNCTIONARY = ToolForm("functionary", "named", begin=">>>", after_name="\n", separator="")
HARMONY = ToolForm(
    "harmony",
    "harmony",
    begin="<|channel|>commentary to=functions.",
    after_name=" <|constrain|>json<|message|>",
)
BARE = ToolForm("bare")
"""A JSON object and nothing else: what a constraint makes a model write whose own form it can't rule."""
