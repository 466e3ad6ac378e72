"""The OpenAPI document says what the routes take and answer."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.request.schema import fields_of
from tests.serve.live import Live

HELLO = [{"role": "developer", "content": [{"type": "text", "text": "hello"}]}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TURNS = [
    *HELLO,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "5"},
]
TAKEN: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": HELLO, "logprobs": True, "top_logprobs": 2, "n": 2, "seed": 1}),
    ("/v1/chat/completions", {"messages": HELLO, "max_completion_tokens": 3, "stop": "e", "top_k": -1}),
    ("/v1/chat/completions", {"messages": HELLO, "response_format": {"type": "json_object"}}),
    ("/v1/chat/completions", {"messages": TURNS, "tools": [TOOL], "tool_choice": "required"}),
    ("/v1/completions", {"prompt": "hello", "logprobs": 2, "echo": True, "stop": ["x", "y"]}),
    ("/v1/completions", {"prompt": [104, 105], "logit_bias": {"97": -100}, "max_tokens": -1}),
    ("/v1/completions", {"prompt": ["hello", "there"], "n": 2}),
    ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "float"}),
    ("/v1/embeddings", {"input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": None}),
]
STREAMED = [(endpoint, body) for endpoint, body in TAKEN if "embeddings" not in endpoint]


@pytest.fixture(scope="module")
def document(chats: Live) -> Any:
    return _asked(f"{chats.url}/openapi.json")


def _asked(url: str, body: Any = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url, data)) as response:
        said = response.read()
    return [json.loads(e[6:]) for e in said.split(b"\n\n")[:-2]] if said[:5] == b"data:" else json.loads(said)


def _check(schema: Any, *values: Any) -> None:
    Draft202012Validator.check_schema(schema)
    described = Draft202012Validator(schema)
    assert [error.message for value in values for error in described.iter_errors(value)] == []


def _told(document: Any, endpoint: str, status: str = "200", media: str = "application/json") -> Any:
    return document["paths"][endpoint]["post"]["responses"][status]["content"][media]


@pytest.mark.parametrize(("endpoint", "body"), TAKEN)
def test_bodies_and_answers_are_as_described(document, chats, vectors, endpoint, body):
    taken = document["paths"][endpoint]["post"]["requestBody"]["content"]["application/json"]["schema"]
    _check(taken, body)
    live = vectors if "embeddings" in endpoint else chats
    _check(_told(document, endpoint)["schema"], _asked(live.url + endpoint, body))


@pytest.mark.parametrize(("endpoint", "body"), STREAMED)
def test_events_are_as_described(document, chats, endpoint, body):
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    schema = _told(document, endpoint, media="text/event-stream")["x-event"]
    events = _asked(chats.url + endpoint, streamed)
    assert events
    _check(schema, *events)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/org/fake", "/v1/health"])
def test_what_is_read_is_as_described(document, chats, path):
    described = document["paths"]["/v1/models/{id}" if "fake" in path else path]["get"]
    _check(described["responses"]["200"]["content"]["application/json"]["schema"], _asked(chats.url + path))


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_every_field_that_is_served_is_described(document, endpoint):
    taken = document["paths"][endpoint]["post"]["requestBody"]["content"]["application/json"]["schema"]
    streaming = set() if "embeddings" in endpoint else {"stream", "stream_options"}
    assert taken["properties"].keys() == fields_of(endpoint) | streaming
    assert "$ref" not in json.dumps(taken)


def test_every_route_says_how_it_refuses(document, chats):
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["responses"].keys() >= {"200", "4XX", "5XX"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        _asked(f"{chats.url}/v1/completions", {})
    _check(_told(document, "/v1/completions", "4XX")["schema"], json.load(refused.value))
