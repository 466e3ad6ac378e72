"""What a chat's answer says beside its text: calls, reasoning, labels, and whether it is whole."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from pipeline.answer.answers import Answers
from pipeline.answer.openai_body import to_openai
from pipeline.chat.chat_format import ChatFormats
from pipeline.engine.sampling.deciding import Decision
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.generated import CHAT, NOTHING, generate, said, through_parquet

HERMES = "{% if tools %}{% endif %}" + '<tool_call>\n{"name": <function-name>}' + "<think></think>"
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
caller = Answers("m", "fingerprint", NOTHING, formats=ChatFormats(HERMES))


def chat(**fields: Any) -> Row:
    body = {"messages": [{"role": "user", "content": "Hi"}]} | fields
    return Row("a", parse_request("/v1/chat/completions", body))


def call(city: str) -> str:
    return f'<tool_call>{{"name": "weather", "arguments": {{"city": "{city}"}}}}</tool_call>'


@given(st.lists(st.lists(st.sampled_from(["Rome", "Oslo", "Čáslav"]), max_size=3), min_size=1, max_size=3))
def test_tool_calls_are_openais(cities: list[list[str]]) -> None:
    choices = [said("".join(map(call, asked)) or "none") for asked in cities]
    record = caller.chat(chat(tools=[WEATHER], n=len(cities)), choices, 1)
    (read,) = through_parquet(caller, record)
    assert to_openai(read) == to_openai(record)
    body = ChatCompletion.model_validate(to_openai(read), strict=True)
    found = [choice.message.tool_calls or [] for choice in body.choices]
    assert [[json.loads(c.function.arguments)["city"] for c in calls] for calls in found] == cities
    assert [choice.finish_reason for choice in body.choices] == [
        "tool_calls" if asked else "stop" for asked in cities
    ]
    contents = [choice.message.content for choice in body.choices]
    assert contents == [None if asked else "none" for asked in cities]
    ids = [c.id for calls in found for c in calls]
    assert len(set(ids)) == len(ids) == sum(map(len, cities))
    assert all(re.fullmatch(r"call_[0-9a-f]{24}", name) for name in ids)
    assert read["text"] == body.choices[0].message.content


def test_tool_calls_follow_what_the_request_allows() -> None:
    two = said(call("Rome") + call("Oslo"))

    def calls(**fields: Any) -> int:
        message = to_openai(caller.chat(chat(**fields), [two], 1))["choices"][0]["message"]
        return len(message.get("tool_calls", []))

    assert calls() == calls(tools=[WEATHER], tool_choice="none") == 0
    assert calls(tools=[WEATHER], parallel_tool_calls=False) == 1
    assert calls(tools=[WEATHER]) == calls(tools=[WEATHER], tool_choice="required") == 2


NINE = (
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have 9 letters') }}{% endif %}"
    "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
    "{{ m.content or '' }}{% endfor %}"
)


def test_ids_of_calls_are_such_as_the_models_template_takes_back() -> None:
    """llama-cpp-python#1580: Mistral's templates refuse ids that aren't nine letters and digits."""
    answers = Answers("m", "fingerprint", NOTHING, formats=ChatFormats(NINE))
    two = said('[TOOL_CALLS]weather[ARGS]{"city": "Rome"}[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}')
    record = answers.chat(chat(tools=[WEATHER]), [two], 1)
    calls = record["choices"][0]["message"]["tool_calls"]
    assert len({call["id"] for call in calls}) == 2
    assert all(re.fullmatch("[A-Za-z0-9]{9}", call["id"]) for call in calls)


def test_an_answer_that_was_cut_off_ends_by_length_whatever_it_holds() -> None:
    cut = said(call("Rome") + "<tool_call>", finish_reason="length")
    record = caller.chat(chat(tools=[WEATHER]), [cut], 1)
    assert record["finish_reason"] == "length"
    assert to_openai(record)["choices"][0]["message"]["content"] == "<tool_call>"


def test_reasoning_has_a_place_of_its_own() -> None:
    row, text = chat(), "<think>\nwhy?\n</think>\n\nSo."
    (record,) = through_parquet(caller, caller.chat(row, [said(text)], 1))
    body = ChatCompletion.model_validate(to_openai(record), strict=True)
    assert (body.choices[0].message.content, record["text"]) == ("So.", "So.")
    assert to_openai(record)["choices"][0]["message"]["reasoning_content"] == "why?"
    guided = caller.chat(chat(guided_regex=".*"), [said(text)], 1)
    assert guided["text"] == text


@pytest.mark.parametrize(
    ("fields", "whole", "complete"),
    [
        ({}, [True], None),
        ({"response_format": {"type": "json_object"}}, [True], True),
        ({"response_format": {"type": "json_object"}}, [False], False),
        ({"guided_choice": ["yes", "no"], "n": 3}, [True, False, True], False),
        ({"guided_choice": ["yes", "no"], "n": 2}, [True, True], True),
        ({"tools": [WEATHER], "tool_choice": "required"}, [False], False),
        ({"tools": [WEATHER]}, [True], None),
    ],
)
def test_half_an_answer_is_never_passed_off_as_valid(
    fields: dict[str, Any], whole: list[bool], complete: bool | None
) -> None:
    choices = [said("yes", complete=each) for each in whole]
    (record,) = through_parquet(caller, caller.chat(chat(**fields), choices, 1))
    assert record["complete"] is complete
    assert [c["finish_reason"] for c in record["choices"]] == ["stop" if each else "length" for each in whole]


scored = st.dictionaries(
    st.text(max_size=5), st.floats(-700, 0) | st.just(-math.inf), min_size=1, max_size=6
).filter(lambda labels: max(labels.values()) > -math.inf)


@given(scored)
def test_labels_have_probabilities_that_add_up_in_the_requests_order(labels: dict[str, float]) -> None:
    decision = Decision(None, tuple(labels), tuple(labels.values()), 0)
    answer = generate.chat(Row("a", CHAT), [said("yes", decisions=(decision,))], 1)
    (record,) = through_parquet(generate, answer)
    found = record["label_logprobs"]
    assert [entry["label"] for entry in found] == list(labels)
    assert math.isclose(sum(entry["probability"] for entry in found), 1)
    peak = max(labels.values())
    total = peak + math.log(sum(math.exp(value - peak) for value in labels.values()))
    for entry, logprob in zip(found, labels.values(), strict=True):
        assert entry["path"] is None
        assert entry["logprob"] == pytest.approx(max(logprob - total, -9999))
        assert entry["probability"] == pytest.approx(math.exp(logprob - total))
    body = to_openai(record)
    assert body["label_logprobs"] == found
    ChatCompletion.model_validate(body, strict=True)


@given(st.lists(scored, min_size=1, max_size=4))
def test_the_columns_beside_are_those_of_the_least_certain_decision(places: list[dict[str, float]]) -> None:
    """Report: a margin that people can use."""
    decisions = tuple(
        Decision(f"p{at}", tuple(labels), tuple(labels.values()), 0) for at, labels in enumerate(places)
    )
    answer = generate.chat(Row("a", CHAT), [said("yes", decisions=decisions)], 1)
    (record,) = through_parquet(generate, answer)
    by_place: dict[str, list[float]] = {}
    for entry in record["label_logprobs"]:
        by_place.setdefault(entry["path"], []).append(entry["probability"])
    margins = {
        place: values[0] - (values[1] if len(values) > 1 else 0)
        for place, values in ((place, sorted(found, reverse=True)) for place, found in by_place.items())
    }
    assert record["margin"] == pytest.approx(min(margins.values()))
    assert record["margin"] == pytest.approx(margins[record["label_path"]])
    mine = [entry for entry in record["label_logprobs"] if entry["path"] == record["label_path"]]
    chances = {entry["label"]: entry["probability"] for entry in mine}
    assert record["best_probability"] == max(chances.values()) == chances[record["best_label"]]
    if len(chances) > 1:
        rest = [chance for label, chance in chances.items() if label != record["best_label"]]
        assert chances[record["runner_up"]] == max(rest)
    else:
        assert (record["runner_up"], record["margin"]) == (None, 1)
    entropy = -sum(chance * math.log(chance) for chance in chances.values() if chance)
    assert record["entropy"] == pytest.approx(entropy, abs=1e-9)


def test_rows_that_ask_for_no_labels_have_none() -> None:
    (record,) = through_parquet(generate, generate.chat(Row("a", CHAT), [said("yes")], 1))
    assert record["label_logprobs"] is None
    assert record["margin"] is None
    assert "label_logprobs" not in to_openai(record)
