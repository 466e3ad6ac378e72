"""A request's constraint: one for each way to ask, equal where the allowed texts are equal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.constraint.constraints import Constraint, constraint_of
from pipeline.request.schema import ChatRequest, CompletionRequest, parse_request

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"enum": ["x"]}}}
TOOLS = [
    {"type": "function", "function": {"name": "label", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


def constraint(**fields: Any) -> Constraint | None:
    request = parse_request("/v1/chat/completions", {"messages": [{"role": "user", "content": "?"}]} | fields)
    assert isinstance(request, ChatRequest)
    return constraint_of(request)


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": {"type": "text"}}, {"tools": TOOLS}, {"guided_choice": []}]
)
def test_any_text_will_do(fields: dict[str, Any]) -> None:
    assert constraint(**fields) is None


def test_each_way_to_ask() -> None:
    assert constraint(guided_choice=["a", "b"]) == Constraint(
        "choice", choices=("a", "b"), param="guided_choice"
    )
    assert constraint(guided_regex="a+") == Constraint("regex", "a+", param="guided_regex")
    assert constraint(grammar="start: /a/") == Constraint("grammar", "start: /a/", param="grammar")
    any_object = constraint(response_format={"type": "json_object"})
    assert any_object == Constraint("json_object", '{"type":"object"}', param="response_format.schema")


def test_a_completion_may_be_constrained_too() -> None:
    request = parse_request("/v1/completions", {"prompt": "?", "guided_choice": ["a"]})
    assert isinstance(request, CompletionRequest)
    assert constraint_of(request) == Constraint("choice", choices=("a",), param="guided_choice")


def test_a_schemas_keys_keep_their_order_and_whole_numbers_are_integers() -> None:
    found = constraint(response_format=schema_format(SCHEMA | {"maxProperties": 2.0}))
    assert found
    assert found.kind == "json_schema"
    assert found.param == "response_format.json_schema.schema"
    assert found.text == json.dumps(SCHEMA | {"maxProperties": 2}, separators=(",", ":"))


def test_equal_requests_have_equal_constraints() -> None:
    ways = [schema_format(SCHEMA), {"type": "json_object"}, schema_format({"type": "integer"})]
    pairs = [(constraint(response_format=way), constraint(response_format=way, seed=1)) for way in ways]
    assert all(first == second for first, second in pairs)
    assert len({first for first, _ in pairs}) == len(ways)


def calls(found: Constraint | None) -> dict[str, Any]:
    assert found
    assert found.kind == "tools"
    record = json.loads(found.text)
    assert isinstance(record, dict)
    return record


def test_required_tools() -> None:
    any_tool = calls(constraint(tools=TOOLS, tool_choice="required"))
    assert [call["name"] for call in any_tool["calls"]] == ["label", "now"]
    assert [call["schema"] for call in any_tool["calls"]] == [SCHEMA, NO_PARAMETERS]
    named = {"type": "function", "function": {"name": "now"}}
    assert [c["name"] for c in calls(constraint(tools=TOOLS, tool_choice=named))["calls"]] == ["now"]


def test_several_calls_only_where_they_are_asked_for() -> None:
    several = [
        calls(constraint(tools=TOOLS, tool_choice="required", **fields))["several"]
        for fields in ({}, {"parallel_tool_calls": False}, {"parallel_tool_calls": True})
    ]
    assert several == [False, False, True]


def test_tools_beside_a_format_are_an_alternative_to_it() -> None:
    record = calls(constraint(tools=TOOLS, response_format=schema_format(SCHEMA)))
    assert record["else"] == SCHEMA
    unasked = constraint(tools=TOOLS, tool_choice="none", response_format=schema_format(SCHEMA))
    assert unasked == constraint(response_format=schema_format(SCHEMA))
