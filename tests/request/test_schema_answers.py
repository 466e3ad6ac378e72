"""Requests that say how the answer must look: tools, formats, choices, log-probabilities."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.request.json_values import read_json
from pipeline.request.schema import ChatRequest, CompletionRequest, parse_request
from pipeline.request.tools import ToolChoice

CHAT: Endpoint = "/v1/chat/completions"
COMPLETION: Endpoint = "/v1/completions"
SCHEMA = {"type": "object", "properties": {"label": {"enum": ["good", "bad"]}}, "required": ["label"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": SCHEMA}}
ENUM = {"type": "json_schema", "json_schema": {"name": "l", "schema": {"type": "string", "enum": ["a", "é"]}}}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA, "strict": True},
}
TOOLS = [TOOL, {"type": "function", "function": {"name": "now"}}]


def chat(**fields: Any) -> ChatRequest:
    request = parse_request(CHAT, {"messages": [{"role": "user", "content": "Hi"}]} | fields)
    assert isinstance(request, ChatRequest)
    return request


def completion(**fields: Any) -> CompletionRequest:
    request = parse_request(COMPLETION, {"prompt": "Hi"} | fields)
    assert isinstance(request, CompletionRequest)
    return request


def refusal(endpoint: Endpoint = CHAT, **fields: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        chat(**fields) if endpoint == CHAT else completion(**fields)
    return caught.value


def test_a_body_written_for_openai_is_taken_as_it_is() -> None:
    request = chat(
        response_format=FORMAT | {"json_schema": FORMAT["json_schema"] | {"description": "A label."}},
        tools=TOOLS,
        tool_choice="auto",
        parallel_tool_calls=True,
        logprobs=True,
        top_logprobs=3,
        logit_bias={"50256": -100, "7": 1.5},
        n=3,
        seed=5,
        store=False,
        service_tier="auto",
        stream=False,
        stream_options=None,
        metadata={"run": "1"},
    )
    assert (request.n, request.top, request.logit_bias) == (3, 3, ((7, 1.5), (50256, -100.0)))
    assert [tool.for_template() for tool in request.offered] == TOOLS


def test_log_probabilities_of_chats_and_completions() -> None:
    assert (chat().top, chat(logprobs=True).top, chat(logprobs=True, top_logprobs=20).top) == (None, 0, 20)
    assert (completion().top, completion(logprobs=0).top, completion(logprobs=5).top) == (None, 0, 5)
    assert completion(logprobs=False) == completion()
    assert completion(echo=True).echo
    assert refusal(top_logprobs=2).message == "top_logprobs needs logprobs: true"
    assert refusal(logprobs=2).param == "logprobs"
    assert refusal(COMPLETION, logprobs=6).param == "logprobs"
    assert refusal(echo=True).param == "echo"


def test_best_of_is_n() -> None:
    assert completion(n=2, best_of=2) == completion(n=2)
    assert refusal(COMPLETION, n=2, best_of=3).param == "best_of"


@pytest.mark.parametrize(
    ("bias", "param"),
    [
        ({"5": 101}, "logit_bias.5"),
        ({"5": "1"}, "logit_bias.5"),
        ({"5": True}, "logit_bias.5"),
        ({"five": 1}, "logit_bias"),
        ({"-1": 1}, "logit_bias"),
    ],
)
def test_a_bias_is_of_a_token_and_bounded(bias: dict[str, Any], param: str) -> None:
    assert refusal(logit_bias=bias).param == param


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": []}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}, "x": 1}}, "response_format.json_schema.x"),
        ({"type": "json_object", "schema_": {}}, "response_format.schema_"),
        (
            {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}},
            "response_format.json_schema.strict",
        ),
        ({"type": "json_object", "json_schema": {"schema": {}}}, "response_format.json_schema"),
        ({"type": "text", "schema": {}}, "response_format.schema"),
    ],
)
def test_a_wrong_format_is_named_by_its_path(form: dict[str, Any], param: str) -> None:
    error = refusal(response_format=form)
    assert error.param == param
    assert error.message.startswith(param)


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ("now", "tools[1]"),
        ({"type": "function"}, "tools[1].function"),
        ({"type": "custom", "function": {"name": "a"}}, "tools[1].type"),
        ({"type": "function", "function": {}}, "tools[1].function.name"),
        ({"type": "function", "function": {"name": "a b"}}, "tools[1].function.name"),
        ({"type": "function", "function": {"name": "a", "parameters": []}}, "tools[1].function.parameters"),
        ({"type": "function", "function": {"name": "a", "returns": 1}}, "tools[1].function.returns"),
        (TOOL, "tools[1].function.name"),
    ],
)
def test_a_wrong_tool_is_named_by_its_path(tool: Any, param: str) -> None:
    error = refusal(tools=[TOOL, tool])
    assert error.param == param
    assert error.message.startswith(param)


def test_tool_choices() -> None:
    assert chat(tools=TOOLS).tool_choice == ToolChoice("auto")
    assert chat(tools=TOOLS, tool_choice="none").offered == []
    assert chat(tools=TOOLS, tool_choice="required").tool_choice == ToolChoice("required")
    named = {"type": "function", "function": {"name": "now"}}
    assert chat(tools=TOOLS, tool_choice=named).tool_choice == ToolChoice("required", "now")


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("maybe", "tool_choice"),
        (["now"], "tool_choice"),
        ({"type": "allowed_tools"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function.name"),
        ({"type": "function", "function": {"name": "other"}}, "tool_choice.function.name"),
    ],
)
def test_a_choice_of_no_tool_is_refused(choice: Any, param: str) -> None:
    assert refusal(tools=TOOLS, tool_choice=choice).param == param


def test_turns_with_tool_calls_come_back() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"at": null}'}}
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "noon"}]},
        {"role": "assistant", "content": "Noon.", "tool_calls": [], "reasoning_content": "So."},
    ]
    _, asks, tells, answers = (message.for_template() for message in chat(messages=turns).messages)
    parsed = call | {"function": {"name": "now", "arguments": {"at": None}}}
    assert asks == {"role": "assistant", "content": None, "tool_calls": [parsed]}
    assert tells == {"role": "tool", "content": "noon", "tool_call_id": "c1"}
    assert answers == {"role": "assistant", "content": "Noon.", "reasoning_content": "So."}


@pytest.mark.parametrize("arguments", ["{", "5", '"x"', '{"a": NaN}', '{"a": "\\ud800"}', 5])
def test_arguments_are_a_json_object(arguments: Any) -> None:
    call = {"type": "function", "function": {"name": "now", "arguments": arguments}}
    error = refusal(messages=[{"role": "assistant", "tool_calls": [call]}])
    assert error.param == "messages[0].tool_calls[0].function.arguments"
    assert "JSON object" in error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": FORMAT, "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_regex"),
        ({"guided_regex": "a", "grammar": "start: /a/"}, "grammar"),
        ({"guided_choice": ["a"], "ignore_eos": True}, "ignore_eos"),
        ({"response_format": FORMAT, "min_tokens": 5}, "min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"label_logprobs": True}, "label_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "guided_choice": ["a"]}, "guided_choice"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": FORMAT}, "response_format"),
        ({"tools": TOOLS, "tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
        ({"guided_choice": ["a", "b", "a"]}, "guided_choice[2]"),
        ({"guided_choice": ["a", ""]}, "guided_choice[1]"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert (error.code, error.param) == ("invalid_request", param)


def test_probabilities_of_labels_need_a_constraint() -> None:
    assert chat(guided_choice=["b", "a"], label_logprobs=True, n=2).label_logprobs
    assert completion(response_format=FORMAT, label_logprobs=True).label_logprobs
    assert chat(response_format=ENUM, label_logprobs=True).label_logprobs
    assert "guided_choice or response_format" in refusal(label_logprobs=True).message


def test_a_null_const_in_json_is_kept() -> None:
    body = read_json(json.dumps({"schema": {"const": None}, "tools": [{"const": 1}]}), "body")
    assert body == {"schema": {"enum": [None]}, "tools": [{"const": 1}]}
