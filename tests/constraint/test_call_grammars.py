"""A call that is required comes in the model's own form, and keeps to the function's schema."""

from __future__ import annotations

import json
from functools import lru_cache
from random import Random
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.constraint.constraints import constraint_of
from pipeline.constraint.guides import Guides
from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.engine.guide import Guide
from pipeline.request.schema import ChatRequest, parse_request
from tests.chat.test_tool_forms import HARMONY_TEMPLATE, TEMPLATES, formats, read, written
from tests.constraint.test_guides import walk

LETTERS = FakeVocabulary()
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "any"},
        "kind": {"enum": ["old", "new"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["text", "kind"],
}
TAGGED = ["Qwen3-Coder", "GLM 4.6", "MiniMax M2"]
OWN = [*TAGGED, "LFM2", "OLMo 3"]


def tool(schema: dict[str, Any], name: str = "find") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def guide(source: str, *tools: dict[str, Any], **fields: Any) -> Guide:
    body = {"messages": [{"role": "user", "content": "?"}], "tools": list(tools), "tool_choice": "required"}
    request = parse_request("/v1/chat/completions", body | fields)
    assert isinstance(request, ChatRequest)
    constraint = constraint_of(request)
    assert constraint is not None
    return guides(source).guide(constraint)


@lru_cache
def guides(source: str) -> Guides:
    return Guides(LETTERS, formats(source))


def takes(found: Guide, text: str) -> bool:
    """Whether the whole text may be said, and nothing has to follow."""
    for token in text.encode():
        logits = np.zeros(LETTERS.size, np.float32)
        found.mask(logits)
        if logits[token] == -np.inf:
            return False
        found.accept(token)
    return found.complete


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=15, deadline=None)
@given(
    st.text("abc é{}\"'\\", min_size=1, max_size=8).filter(lambda text: text == text.strip()),
    st.sampled_from(["old", "new"]),
    st.none() | st.integers(0, 99),
)
def test_what_the_model_writes_by_itself_is_what_is_allowed(
    name: str, text: str, kind: str, count: int | None
) -> None:
    values: dict[str, Any] = {"text": text, "kind": kind} | ({} if count is None else {"count": count})
    call = written(TEMPLATES[name], [("find", values)])
    assert takes(guide(TEMPLATES[name], tool(SCHEMA)), call.lstrip())
    assert read(TEMPLATES[name], call, tools=[tool(SCHEMA)])[0] == [("find", values)]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    "values",
    [
        {"text": "a"},
        {"text": "a", "kind": "other"},
        {"text": "a", "kind": "old", "count": 100},
        {"kind": "old"},
    ],
    ids=["none of two required", "no choice", "too large", "no text"],
)
def test_what_the_schema_does_not_allow_is_not(name: str, values: dict[str, Any]) -> None:
    call = written(TEMPLATES[name], [("find", values)]).lstrip()
    assert not takes(guide(TEMPLATES[name], tool(SCHEMA)), call)


@pytest.mark.parametrize("name", OWN)
def test_several_calls_where_they_are_asked_for(name: str) -> None:
    values = {"text": "a", "kind": "old"}
    one, two = (written(TEMPLATES[name], [("find", values)] * count).strip() for count in (1, 2))
    assert not takes(guide(TEMPLATES[name], tool(SCHEMA)), two)
    many = guide(TEMPLATES[name], tool(SCHEMA), parallel_tool_calls=True)
    assert takes(many.copy(), one)
    assert takes(many, two)


@pytest.mark.parametrize("name", OWN)
def test_a_function_without_parameters(name: str) -> None:
    nothing = {"type": "object", "properties": {}}
    assert takes(guide(TEMPLATES[name], tool(nothing)), written(TEMPLATES[name], [("find", {})]).lstrip())


@pytest.mark.parametrize("name", TAGGED)
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"type": "string", "pattern": "^[ab]$"}}, "required": ["x"]},
        {"type": "object", "properties": {"x": {"type": ["string", "null"]}}, "required": ["x"]},
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    ],
)
def test_a_schema_that_marks_cannot_keep_to_is_kept_to_by_json(name: str, schema: dict[str, Any]) -> None:
    values = {"x": 1} if "minProperties" in schema else {"x": "a"}
    text = json.dumps({"name": "find", "arguments": values}, separators=(",", ":"))
    assert takes(guide(TEMPLATES[name], tool(schema)), text)
    assert read(TEMPLATES[name], text, tools=[tool(schema)])[0] == [("find", values)]


SHORT = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["old", "new"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["kind"],
    "additionalProperties": False,
}
ALL = TEMPLATES | {"gpt-oss": HARMONY_TEMPLATE}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_is_allowed_is_read_as_a_call_that_keeps_to_the_schema(name: str, seed: int) -> None:
    found = guide(ALL[name], tool(SHORT), tool(SHORT, "seek"), parallel_tool_calls=seed == 3)
    text = walk(found, LETTERS, Random(seed))
    calls, reply = read(ALL[name], text, tools=[tool(SHORT), tool(SHORT, "seek")])
    assert calls
    assert reply.content is None
    for called, values in calls:
        assert called in ("find", "seek")
        jsonschema.validate(values, SHORT)
