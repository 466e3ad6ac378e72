"""What is certain of a reply before it ends is how the whole reply begins, wherever it is cut."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat.bare_calls import can_become_bare
from pipeline.chat.growing_reply import GrowingReply
from pipeline.chat.reply import Reply, ReplyReader
from pipeline.chat.tool_forms import (
    BARE,
    FUNCTIONARY,
    GEMMA,
    GRANITE,
    HARMONY,
    HERMES,
    LFM,
    LLAMA,
    MISTRAL,
    ToolForm,
)

NAMES = {"weather": {"type": "object", "properties": {"city": {"type": "string"}}}, "search": None}
QWEN = ToolForm(
    "tagged",
    "tagged",
    begin="<tool_call>\n<function=",
    end="</function>\n</tool_call>",
    after_name=">\n",
    key_begin="<parameter=",
    key_end=">\n",
    value_end="\n</parameter>\n",
)
SECTIONED = ToolForm(
    "sectioned",
    "named",
    begin="<|call|>",
    end="<|end_call|>",
    after_name="<|sep|>",
    section=("<|calls|>", "<|/calls|>"),
)
FORMS = [BARE, FUNCTIONARY, GEMMA, GRANITE, HARMONY, HERMES, LFM, LLAMA, MISTRAL, QWEN, SECTIONED]
THINKS = ("<think>", "</think>")
WRAPS = ("<answer>", "</answer>")
CALL = {"name": "weather", "arguments": {"city": "Paris"}}
BITS = [
    json.dumps(CALL),
    json.dumps({"name": "weather", "parameters": {}}),
    '[{"name": "search", "arguments": {}}]',
    'weather{city:<|"|>Paris<|"|>}',
    'weather(city="Paris")',
    "weather\n{}",
    "weather<|sep|>{}<|end_call|>",
    "weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
    "<|channel|>analysis<|message|>why<|end|>",
    "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{}<|call|>",
    "<|channel|>final<|message|>",
    *("Hello there", "is it", " ", "\n\n", "all\n", "#x", "1. one", "<", "é?", "a", '"'),
    *THINKS,
    *WRAPS,
]


def texts(form: ToolForm) -> st.SearchStrategy[str]:
    marks = [mark for mark in (*form.marks, form.begin.strip(), form.end.strip()) if mark]
    bits = st.sampled_from([*BITS, *marks, *marks]) | st.text("ab {<[", max_size=3)
    return st.lists(bits, max_size=7).map("".join)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_what_is_certain_is_how_the_whole_reply_begins(data: st.DataObject, form: ToolForm) -> None:
    reasoning = data.draw(st.sampled_from([None, THINKS]))
    reader = ReplyReader(form, reasoning, data.draw(st.sampled_from([None, WRAPS])))
    tools = data.draw(st.sampled_from([{}, NAMES]))
    parallel, opened = data.draw(st.booleans()), data.draw(st.booleans()) and reasoning is not None
    text = data.draw(texts(form))
    whole = reader.read(text, tools, parallel=parallel, opened=opened)
    growing = GrowingReply(reader, tools, parallel=parallel, guided=False, opened=opened)
    for stop in range(len(text) + 1):
        found = growing.certain(text[:stop])
        assert _begins(found, whole), (text[:stop], found, whole)


def _begins(part: Reply, whole: Reply) -> bool:
    return (
        (whole.content or "").startswith(part.content or "")
        and (whole.reasoning or "").startswith(part.reasoning or "")
        and whole.calls[: len(part.calls)] == part.calls
    )


@pytest.mark.parametrize("form", [HERMES, MISTRAL, BARE, QWEN, LFM])
def test_prose_comes_as_it_grows_though_tools_are_offered(form: ToolForm) -> None:
    text = "The weather in Paris is fine, I think."
    growing = GrowingReply(ReplyReader(form), NAMES, parallel=True, guided=False, opened=False)
    shown = [len(growing.certain(text[:stop]).content or "") for stop in range(len(text) + 1)]
    assert shown[13:] == [
        len(text[:stop].rstrip() if form is not BARE else text[:stop]) for stop in range(13, 39)
    ]


def test_a_mark_is_withheld_and_the_calls_before_the_last_are_told() -> None:
    growing = GrowingReply(ReplyReader(HERMES), NAMES, parallel=True, guided=False, opened=False)
    call = f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>"
    assert growing.certain("I look. <tool").content == "I look."
    found = growing.certain(f"I look. {call}\n{call}")
    assert (found.content, len(found.calls)) == ("I look.", 1)


def test_reasoning_comes_as_it_grows_up_to_its_closing_mark() -> None:
    growing = GrowingReply(ReplyReader(None, THINKS), {}, parallel=True, guided=False, opened=True)
    assert growing.certain("I wonder </thi") == Reply(None, "I wonder")
    assert growing.certain("I wonder </think>\n\nYes") == Reply("Yes", "I wonder")


@given(
    st.lists(
        st.sampled_from(["weather()", "x", "if", "# a b\n", "'a b'", ", ", " ", "1", "\n", "in", "="])
    ).map("".join)
)
def test_python_stays_possible_while_it_is_python(text: str) -> None:
    try:
        ast.parse(text.strip())
    except (SyntaxError, ValueError):
        return
    assert all(can_become_bare(text[:stop]) for stop in range(len(text) + 1))
