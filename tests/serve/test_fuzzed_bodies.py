"""Whatever JSON a client sends is answered with 200, or refused with 4xx and OpenAI's error body."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.request.schema import KNOWN_FIELDS
from tests.serve.live import Live, until

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"enum": [1, 2]}}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "tools": [TOOL], "response_format": SCHEMA, "stop": ["e"]},
    "/v1/completions": {"prompt": "hello", "logprobs": 1, "echo": True, "logit_bias": {"97": 5}},
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "float"},
}
FEW = {"max_tokens": 2, "n": 1}

texts = st.text(st.characters(exclude_categories=()), max_size=8)
numbers = st.integers(-9, 9) | st.integers() | st.floats() | st.sampled_from([2**31, 2**64, -(2**63), 1e308])
known = sorted(KNOWN_FIELDS | {"stream", "stream_options", "type", "role", "content", "function", "text"})
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(known) | texts, inner, max_size=4)
    ),
    max_leaves=8,
)
quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def places(chats: Live, vectors: Live) -> Iterator[dict[str, str]]:
    """Where the service of each endpoint listens."""
    served = {endpoint: vectors if "embeddings" in endpoint else chats for endpoint in BODIES}
    yield {endpoint: urlsplit(live.url).netloc for endpoint, live in served.items()}
    until(lambda: chats.idle)


@quick
@given(endpoint=st.sampled_from(sorted(BODIES)), body=values | st.binary(max_size=20))
def test_any_body(places, endpoint, body):
    _post(places[endpoint], endpoint, body if isinstance(body, bytes) else json.dumps(body).encode())


@quick
@given(data=st.data())
def test_a_good_body_with_strange_fields(places, data):
    endpoint = data.draw(st.sampled_from(sorted(BODIES)))
    strange = data.draw(st.dictionaries(st.sampled_from(known), values, min_size=1, max_size=3))
    _post(places[endpoint], endpoint, json.dumps(BODIES[endpoint] | _short(endpoint, strange)).encode())


@quick
@given(data=st.data())
def test_a_good_body_with_a_strange_value_within(places, data):
    endpoint = data.draw(st.sampled_from(sorted(BODIES)))
    body = json.loads(json.dumps(BODIES[endpoint]))
    place, key = data.draw(st.sampled_from(list(_places(body))))
    place[key] = data.draw(values)
    _post(places[endpoint], endpoint, json.dumps(_short(endpoint, body)).encode())


def _short(endpoint: str, fields: dict[str, Any]) -> dict[str, Any]:
    """So that an answer takes a few steps, however much is asked for."""
    return fields if "embeddings" in endpoint else fields | FEW


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each item of a JSON value, as what holds it and its key."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _post(place: str, endpoint: str, body: bytes) -> None:
    line = http.client.HTTPConnection(place)
    line.request("POST", endpoint, body, {"content-type": "application/json"})
    response = line.getresponse()
    said = response.read()
    line.close()
    assert response.status == 200 or 400 <= response.status < 500, said
    if response.status != 200:
        error = json.loads(said)["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"] and error["type"] == "invalid_request_error"
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert said.endswith(b"data: [DONE]\n\n") and b'"error"' not in said
