"""What a chat template takes: found once for each template, by rendering small chats with marks in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

from pipeline.chat.chat_template import ChatTemplate
from pipeline.errors import RowError

Turn = dict[str, Any]
"""A message, as a template gets it."""
ContentForm = Literal["text", "parts"]
NoContent = Literal["null", "absent", "empty", "no parts"]
Arguments = Literal["object", "text"]
CallIds = Literal["any", "nine", "named"]

_USER, _THOUGHT = "zquserqz", "zqthoughtqz"
SAID, RESULT = "zqsaidqz", "zqresultqz"
NAME, KEYS, VALUES = "zqnameqz", ("zqonekeyqz", "zqtwokeyqz"), ("zqonevalueqz", "zqtwovalueqz")
"""The marks in the calls of `call_turns`."""
_TOOL = "zqtoolqz"
SOME_TOOL = {
    "type": "function",
    "function": {"name": _TOOL, "description": "d", "parameters": {"type": "object", "properties": {}}},
}
_IDS = {
    "any": ("call_0123456789abcdef01234567", "call_0123456789abcdef01234568"),
    "nine": ("abcdef123", "abcdef124"),
}
CALL_IDS = (*_IDS["any"], *_IDS["nine"])
"""The ids in the calls of `call_turns`, but for those that hold a name."""
_FORMS: tuple[ContentForm, ...] = ("text", "parts")
_NO_CONTENT: tuple[NoContent, ...] = ("null", "absent", "empty", "no parts")
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


@dataclass(frozen=True, slots=True)
class TemplateNature:
    """content: for each role, whether its content is a string or a list of parts; a role that the
    template shows in neither form is absent.
    no_content: how a turn of the assistant without text has to say so, beside its calls.
    shows_calls: whether the template writes the calls of earlier turns.
    text_before: a turn with text and calls has to become two turns; None where neither way shows both.
    ids: "nine": ids of calls are nine letters and digits (Mistral). "named": an id holds the function's
    name, functions.NAME:0 (Kimi).
    names_results: a result has to name the function that was called.
    reasoning_key: the field in which the template looks for earlier reasoning.
    """

    content: Mapping[str, ContentForm] = field(default_factory=dict)
    shows_calls: bool = False
    no_content: NoContent = "empty"
    arguments: Arguments = "object"
    text_before: bool | None = False
    ids: CallIds = "any"
    names_results: bool = False
    reasoning_key: str = "reasoning_content"

    @property
    def has_system(self) -> bool:
        """Whether there is a turn for a system message."""
        return "system" in self.content


def nature_of(template: ChatTemplate) -> TemplateNature:
    """Never raises: a template that refuses every probe takes whatever there is, and refuses the rows."""
    content: dict[str, ContentForm] = {}
    if form := _user_form(template):
        content["user"] = form
    before: list[Turn] = [{"role": "user", "content": as_content(_USER, form or "text")}]
    for role, around in (("system", ([], before)), ("assistant", (before, []))):
        if form := _form(template, role, *around):
            content[role] = form
    nature = _calling(template, content)
    found = nature or TemplateNature(content)
    return replace(
        found,
        content=content | _tool_content(template, found),
        shows_calls=nature is not None,
        text_before=_text_before(template, found) if nature else False,
        reasoning_key=_reasoning_key(template, found),
    )


def tells_tools(template: ChatTemplate, nature: TemplateNature) -> bool:
    """Whether the model hears of the tools that a request offers."""
    user = call_turns(nature)[0]
    system = {"role": "system", "content": as_content(SAID, nature.content.get("system", "text"))}
    chats = ([user], [system, user])
    return any(_TOOL in (render_or_none(template, turns, [SOME_TOOL]) or "") for turns in chats)


def as_content(text: str, form: ContentForm) -> str | list[Turn]:
    """A text in the form that a template takes."""
    return text if form == "text" else [{"type": "text", "text": text}]


def without_content(turn: Turn, form: NoContent) -> Turn:
    """A turn that has no text, in the form that a template takes."""
    if form == "absent":
        return {name: value for name, value in turn.items() if name != "content"}
    return turn | {"content": {"null": None, "empty": "", "no parts": []}[form]}


def call_turns(nature: TemplateNature, said: str | None = None, calls: int = 1) -> list[Turn]:
    """A question, and an answer of the assistant with calls: all of them of `NAME`, with `KEYS` and
    `VALUES` for arguments. said: the assistant's text beside them."""
    user = {"role": "user", "content": as_content(_USER, nature.content.get("user", "text"))}
    arguments: Any = dict(zip(KEYS, VALUES, strict=True))
    if nature.arguments == "text":
        arguments = f'{{"{KEYS[0]}": "{VALUES[0]}", "{KEYS[1]}": "{VALUES[1]}"}}'
    asked = [
        {"id": _id(nature.ids, i), "type": "function", "function": {"name": NAME, "arguments": arguments}}
        for i in range(calls)
    ]
    turn: Turn = {"role": "assistant", "content": None, "tool_calls": asked}
    if said is None:
        return [user, without_content(turn, nature.no_content)]
    return [user, turn | {"content": as_content(said, nature.content.get("assistant", "text"))}]


def calls_text(template: ChatTemplate, nature: TemplateNature, calls: int = 1) -> str | None:
    """A chat rendered up to and including an answer with that many calls; None if the template refuses it."""
    turns = call_turns(nature, calls=calls)
    text = _render(template, turns, NAME) or _call_text(template, turns, nature)
    return text if text and text.count(VALUES[0]) == calls else None


def said_text(template: ChatTemplate, nature: TemplateNature) -> str | None:
    """The same chat with an answer of `SAID` instead."""
    return _render(template, [call_turns(nature)[0], _said(nature)], SAID)


def render_or_none(template: ChatTemplate, turns: list[Turn], tools: list[Turn] | None = None) -> str | None:
    """None where the template refuses."""
    try:
        return template.render(turns, tools or [])
    except RowError:
        return None


def _user_form(template: ChatTemplate) -> ContentForm | None:
    """A template that refuses whatever it is given gets a string, and may say why."""
    system = {"role": "system", "content": SAID}
    if form := _form(template, "user", []) or _form(template, "user", [system]):
        return form
    tried = [[{"role": "user", "content": as_content(_USER, form)}] for form in _FORMS]
    return None if any(render_or_none(template, turns) is not None for turns in tried) else "text"


def _form(
    template: ChatTemplate, role: str, before: list[Turn], after: list[Turn] | None = None
) -> ContentForm | None:
    """In which form the template shows the content of a role's turn, between others."""
    for form in _FORMS:
        turn = {"role": role, "content": as_content(SAID, form)}
        for turns in ([*before, turn, *(after or [])], [*before, turn, *before]):
            text = _render(template, turns, SAID)
            if text and SAID in text and (_USER in text or role == "user"):
                return form
    return None


def _render(template: ChatTemplate, turns: list[Turn], mark: str) -> str | None:
    """The chat rendered with or without tools, however it shows the mark; None where neither does."""
    texts = (render_or_none(template, turns, tools) for tools in ([], [SOME_TOOL]))
    return next((text for text in texts if text and mark in text), None)


def _calling(template: ChatTemplate, content: Mapping[str, ContentForm]) -> TemplateNature | None:
    """The first of all that a template may take with which it shows a call; None where it shows none.

    OpenAI's and Hugging Face's own forms come first.
    """
    ids: tuple[CallIds, ...] = ("any", "nine", "named")
    arguments: tuple[Arguments, ...] = ("object", "text")
    results = ((True, False), (True, True), (False, False))
    for (with_result, named), which, how in product(results, ids, arguments):
        base = TemplateNature(content, arguments=how, ids=which, names_results=named)
        natures = [replace(base, no_content=form) for form in _NO_CONTENT]
        texts = [_call_text(template, call_turns(nature), nature, with_result) for nature in natures]
        shown = [text if text and _is_call(text) else None for text in texts]
        fewest = min((_nulls(text) for text in shown if text), default=0)
        for nature, text in zip(natures, shown, strict=True):
            # What writes None or null for the text that isn't there has to be told so in another way.
            if text and _nulls(text) == fewest:
                return nature
    return None


def _is_call(text: str) -> bool:
    """Whether a rendered chat holds the call: not as Python prints it, and not as JSON within JSON."""
    if "'function': {'name': " in text:  # The whole call, as Python prints it.
        return False
    as_python, escaped = f"'{KEYS[0]}': ", f'\\"{KEYS[0]}'
    shown = all(mark in text for mark in (NAME, VALUES[0], _USER))
    return shown and as_python not in text and escaped not in text


def _nulls(text: str) -> int:
    return text.count("None") + text.count("null")


def _call_text(
    template: ChatTemplate, turns: list[Turn], nature: TemplateNature, with_result: bool = True
) -> str | None:
    """A chat with calls, rendered: with their result behind, and where the template wants it, more."""
    results = _results(nature, turns) if with_result else [[]]
    texts = (_render(template, [*turns, *result], NAME) for result in results)
    return next(filter(None, texts), None)


def _results(nature: TemplateNature, turns: list[Turn]) -> Iterator[list[Turn]]:
    ids = [call["id"] for call in turns[-1]["tool_calls"]]
    for form in _FORMS:
        content = as_content(RESULT, form)
        name = {"name": NAME} if nature.names_results else {}
        result = [{"role": "tool", "tool_call_id": each, "content": content} | name for each in ids]
        yield result
        yield [*result, _said(nature), turns[0]]


def _tool_content(template: ChatTemplate, nature: TemplateNature) -> dict[str, ContentForm]:
    turns = call_turns(nature)
    for result in _results(nature, turns):
        if _render(template, [*turns, *result], RESULT):
            return {"tool": "text" if isinstance(result[0]["content"], str) else "parts"}
    return {}


def _text_before(template: ChatTemplate, nature: TemplateNature) -> bool | None:
    user, turn = call_turns(nature)
    for split, turns in ((False, call_turns(nature, SAID)), (True, [user, _said(nature), turn])):
        for with_result in (True, False):
            text = _call_text(template, turns, nature, with_result)
            if text and SAID in text and _is_call(text):
                return split
    return None


def _said(nature: TemplateNature) -> Turn:
    return {"role": "assistant", "content": as_content(SAID, nature.content.get("assistant", "text"))}


def _reasoning_key(template: ChatTemplate, nature: TemplateNature) -> str:
    """Templates show the reasoning of the last turn at least; most of them, behind calls only."""
    user, turn = call_turns(nature)
    said = _said(nature)
    for key in _REASONING_KEYS:
        thought = {key: _THOUGHT}
        text = _call_text(template, [user, turn | thought], nature) or ""
        turns = ([user, said | thought], [user, said | thought, user])
        if _THOUGHT in text or any(_render(template, list(chat), _THOUGHT) for chat in turns):
            return key
    return _REASONING_KEYS[0]


def _id(ids: CallIds, number: int) -> str:
    return f"functions.{NAME}:{number}" if ids == "named" else _IDS[ids][number % 2]
