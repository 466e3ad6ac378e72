"""A chat's text is told apart by the marks of its model's template, and nothing of it is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.chat.call_reader import Call
from pipeline.chat.reply import Reply, ReplyReader
from pipeline.chat.tool_forms import BARE, GRANITE, HERMES, LLAMA, MISTRAL, ToolForm

THINKS = ReplyReader(None, ("<think>", "</think>"))
PLAIN = ReplyReader(None)
NAMES = dict.fromkeys(("weather", "search", "größe"))

# No sign that could begin a call or look like one.
words = st.text(st.characters(exclude_characters='{}[]<>|",;', exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
calls = st.tuples(st.sampled_from(list(NAMES)), st.dictionaries(st.text(), values, max_size=3))
forms = st.sampled_from([HERMES, LLAMA, MISTRAL, GRANITE, BARE])
marked = st.sampled_from([HERMES, MISTRAL, GRANITE])


def reader(form: ToolForm) -> ReplyReader:
    return ReplyReader(form)


def spell(form: ToolForm, asked: list[tuple[str, dict[str, Any]]], ascii_only: bool = False) -> str:
    """The calls as a model of this form writes them."""
    objects = [
        json.dumps({form.name_key: name, form.arguments_key: arguments}, ensure_ascii=ascii_only)
        for name, arguments in asked
    ]
    separator = form.separator or ""
    if form.is_list:
        return f"{form.begin}[{separator.join(objects)}]{form.end}"
    return separator.join(f"{form.begin}{text}{form.end}" for text in objects)


def found(reply: Reply) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in reply.calls]


@given(forms, st.lists(calls, min_size=1, max_size=3), st.booleans())
def test_calls_are_read_in_the_models_own_form(form: ToolForm, asked: Any, ascii_only: bool) -> None:
    asked = asked if form.separator else asked[:1]
    reply = reader(form).read(spell(form, asked, ascii_only), NAMES)
    assert found(reply) == asked
    assert reply.content is None


@given(forms, calls)
def test_a_bare_call_is_read_whatever_the_form(form: ToolForm, call: Any) -> None:
    name, arguments = call
    text = json.dumps({form.name_key: name, form.arguments_key: arguments})
    assert found(reader(form).read(f" {text}\n", NAMES)) == [call]


@given(marked, words, st.lists(st.tuples(calls, words), min_size=1, max_size=3))
def test_what_stands_around_calls_is_content(form: ToolForm, before: str, rest: Any) -> None:
    text = before + "".join(spell(form, [call]) + after for call, after in rest)
    reply = reader(form).read(text, NAMES)
    assert found(reply) == [call for call, _ in rest]
    around = before + "".join(after for _, after in rest)
    assert (reply.content or "").split() == around.split()


@given(forms, st.lists(calls, min_size=2, max_size=3))
def test_without_parallel_calls_the_first_is_kept(form: ToolForm, asked: Any) -> None:
    asked = asked if form.separator else asked[:1]
    assert found(reader(form).read(spell(form, asked), NAMES, parallel=False)) == asked[:1]


@given(forms, calls, st.data())
def test_a_call_that_was_cut_off_stays_content(form: ToolForm, call: Any, data: st.DataObject) -> None:
    whole = spell(form, [call])
    text = whole[: data.draw(st.integers(0, whole.rindex("}" if not form.is_list else "]")))]
    assert reader(form).read(text, NAMES) == Reply(text)


@given(forms, st.text())
def test_a_text_without_calls_is_content_as_it_stands(form: ToolForm, text: str) -> None:
    assert reader(form).read(text, NAMES) == Reply(text)


@given(forms, calls)
def test_where_no_tool_is_offered_there_are_no_calls(form: ToolForm, call: Any) -> None:
    text = spell(form, [call])
    assert reader(form).read(text) == Reply(text)


@pytest.mark.parametrize(
    "inside",
    [
        "no JSON",
        '{"name": "weather", "arguments": "not an object"}',
        '{"name": "weather", "arguments": [1]}',
        '{"name": "weather", "arguments": {"x": NaN}}',
        '{"name": "weather", "arguments": {"x": 1e999}}',
        '{"name": "weather", "arguments": {}, "parameters": {}}',
        '{"name": "weather", "arguments": {}, "note": "more"}',
        '{"name": "\\ud800", "arguments": {}}',
        '{"name": 3, "arguments": {}}',
        '{"arguments": {}}',
        '["weather"]',
        "[]",
        "[" * 100_000,
    ],
)
def test_a_malformed_call_stays_content_and_the_sound_one_beside_it_a_call(inside: str) -> None:
    hermes = reader(HERMES)
    broken = f"<tool_call>\n{inside}\n</tool_call>"
    assert hermes.read(broken, NAMES) == Reply(broken)
    sound = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    expected = Reply(broken, None, (Call("weather", "{}"),))
    assert hermes.read(f"{broken}\n{sound}", NAMES) == expected
    assert hermes.read(f"{sound}\n{broken}", NAMES) == expected


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (HERMES, '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}'),
        (HERMES, '<tool_call>\n{"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}\n</tool_call>'),
        (HERMES, '<tool_call>{"name": "weather", "parameters": {"city": "Rome"}}</tool_call>'),
        (LLAMA, '<|python_tag|>{"type": "function", "name": "weather", "parameters": {"city": "Rome"}}'),
        (MISTRAL, ' [{"name": "weather", "arguments": {"city": "Rome"}, "id": "abc123def"}]'),
        (MISTRAL, '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}}]'),
    ],
    ids=["no end", "arguments as text", "other key", "python tag", "begin not shown", "a blank"],
)
def test_liberties_that_models_take(form: ToolForm, text: str) -> None:
    assert reader(form).read(text, NAMES) == Reply(None, None, (Call("weather", '{"city": "Rome"}'),))


def test_several_objects_in_one_mark_are_several_calls() -> None:
    text = '<tool_call>\n{"name": "a", "arguments": {}}\n{"name": "b", "arguments": {"x": 1}}\n</tool_call>'
    assert found(reader(HERMES).read(text, NAMES)) == [("a", {}), ("b", {"x": 1})]


def test_line_breaks_and_half_characters_in_arguments_become_sound_json() -> None:
    text = '<tool_call>{"name": "weather", "arguments": {"a": "x\ny", "b": "\\ud800"}}</tool_call>'
    (call,) = reader(HERMES).read(text, NAMES).calls
    assert json.loads(call.arguments) == {"a": "x\ny", "b": "\ud800"}
    call.arguments.encode()


def test_json_that_names_no_offered_tool_is_content() -> None:
    text = '{"name": "Ada", "parameters": {"born": 1815}}'
    assert reader(LLAMA).read(text, NAMES) == Reply(text)


@given(words, words)
def test_reasoning_is_split_off_where_the_template_marks_it(thought: str, said: str) -> None:
    text = f"<think>\n{thought}\n</think>\n\n{said}"
    reply = THINKS.read(text)
    assert (reply.reasoning or "", reply.content) == (thought.strip(), said.lstrip())
    assert PLAIN.read(text) == Reply(text)
    assert THINKS.read(text, guided=True) == Reply(text)


@given(words, words)
def test_a_template_may_open_the_reasoning_itself(thought: str, said: str) -> None:
    reply = THINKS.read(f"{thought}</think>{said}", opened=True)
    assert (reply.reasoning or "", reply.content) == (thought.strip(), said.lstrip())
    assert THINKS.read(f"{thought}</think>{said}").reasoning is None


@given(words)
def test_unfinished_reasoning_is_all_reasoning(thought: str) -> None:
    expected = Reply("", thought.strip() or None)
    assert THINKS.read(thought, opened=True) == expected
    assert THINKS.read(f"<think>{thought}", opened=True) == expected
    assert THINKS.read(f"<think>{thought}") == expected


def test_calls_are_looked_for_behind_the_reasoning_only() -> None:
    call = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    reply = ReplyReader(HERMES, ("<think>", "</think>")).read(f"<think>{call}?</think>{call}", NAMES)
    assert reply == Reply(None, f"{call}?", (Call("weather", "{}"),))
