"""As test_fuzzed_bodies.py, for Anthropic's routes and llama-server's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serve.live import Live, until
from tests.serve.test_fuzzed_bodies import _places, quick, values
from tests.serve.wire import post

TOOL = {"name": "f", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "5"}]}
TURNS = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": [{"type": "text", "text": "well"}, USE]},
    {"role": "user", "content": [RESULT, {"type": "text", "text": "so?"}]},
]
MESSAGE: dict[str, Any] = {
    "model": "local",
    "max_tokens": 2,
    "messages": TURNS,
    "system": [{"type": "text", "text": "be brief"}],
    "tools": [TOOL],
    "tool_choice": {"type": "auto"},
    "stop_sequences": ["e"],
    "thinking": {"type": "disabled"},
    "output_config": {"format": {"type": "json_schema", "schema": {"enum": [1, 2]}}},
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": MESSAGE,
    "/v1/messages/count_tokens": MESSAGE,
    "/tokenize": {"content": ["a", 5], "with_pieces": True},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": [{"role": "user", "content": "hello"}]},
}


@pytest.fixture
def idle(chats: Live) -> Any:
    yield chats
    until(lambda: chats.idle)


@pytest.mark.parametrize("path", BODIES)
def test_the_bodies_are_good(idle, path):
    assert _post(idle, path, BODIES[path]) == 200


@quick
@given(path=st.sampled_from(sorted(BODIES)), body=values)
def test_any_body(idle, path, body):
    _post(idle, path, body)


@quick
@given(data=st.data())
def test_a_good_body_with_a_strange_value_within(idle, data):
    path = data.draw(st.sampled_from(sorted(BODIES)))
    body = json.loads(json.dumps(BODIES[path]))
    place, key = data.draw(st.sampled_from(list(_places(body))))
    place[key] = data.draw(values)
    _post(idle, path, body | ({"max_tokens": 2} if path == "/v1/messages" else {}))


def _post(live: Live, path: str, body: Any) -> int:
    try:
        answer = post(live, path, body)
    except ValueError:  # No JSON: a number that isn't finite, or half a character.
        return 400
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["type"] in ("invalid_request_error", "not_found_error") and error["message"]
        assert ("type" in answer.json()) == path.startswith("/v1/messages")
    return answer.status_code
