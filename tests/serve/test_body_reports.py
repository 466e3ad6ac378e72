"""Reports about what bodies may hold. (vllm#54116, fuzzed JSON, is in test_fuzzed_bodies.py.)"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from pipeline.request.schema import REQUESTS
from pipeline.request.unserved import WITHOUT_MEANING
from tests.serve.wire import CHAT, COMPLETION, HELLO, post

EMBEDDING = "/v1/embeddings"
BODIES: dict[str, Any] = {
    CHAT: {"messages": HELLO, "max_tokens": 2},
    COMPLETION: {"prompt": "hello", "max_tokens": 2},
    EMBEDDING: {"input": "hello"},
}


@pytest.mark.parametrize("asked", ["hello", ["hello", "there"], [104, 101], [[104], [105, 106]]])
def test_vectors_as_base64_are_the_vectors(vectors, asked):
    """openai-python#1490, vllm#6174: little-endian float32, and floats unless base64 is asked for."""
    plain = post(vectors, EMBEDDING, {"input": asked}).json()
    packed = post(vectors, EMBEDDING, {"input": asked, "encoding_format": "base64"}).json()
    assert packed["usage"] == plain["usage"]
    for one, other in zip(plain["data"], packed["data"], strict=True):
        assert isinstance(one["embedding"], list) and isinstance(other["embedding"], str)
        unpacked = np.frombuffer(base64.b64decode(other["embedding"], validate=True), "<f4")
        np.testing.assert_array_equal(unpacked, np.array(one["embedding"], np.float32))


@pytest.mark.parametrize("path", BODIES)
def test_fields_without_meaning_are_taken(chats, vectors, path):
    """vllm#10463."""
    more: dict[str, Any] = {name: {"any": ["thing"]} for name in WITHOUT_MEANING if name != "stream_options"}
    live = vectors if path == EMBEDDING else chats
    assert post(live, path, BODIES[path] | more).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_a_field_that_means_something_unknown_is_refused_by_name(chats, vectors, path):
    live = vectors if path == EMBEDDING else chats
    answer = post(live, path, BODIES[path] | {"best_guess": 1})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "best_guess"


@pytest.mark.parametrize("path", BODIES)
def test_nulls_count_as_absent(chats, vectors, path):
    """vllm#19862."""
    names = {*REQUESTS[path].model_fields, "stream", "stream_options"} - BODIES[path].keys()  # type: ignore[index]
    live = vectors if path == EMBEDDING else chats
    answer = post(live, path, BODIES[path] | dict.fromkeys(names))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("body", [{}, [], "x", None, {"messages": 1, "prompt": {}, "input": {}}])
def test_nothing_is_ever_a_422(chats, vectors, path, body):
    live = vectors if path == EMBEDDING else chats
    answer = post(live, path, body)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_key_may_come_as_x_api_key(chats, monkeypatch):
    from pipeline.serve.key_lines import key_lines
    from pipeline.serve.keys import Keys

    monkeypatch.setattr(chats.door, "keys", Keys(key_lines("ann:secret", "test"), "test", "true"))
    assert post(chats, CHAT, BODIES[CHAT]).status_code == 401
    assert post(chats, CHAT, BODIES[CHAT], **{"x-api-key": "other"}).status_code == 401
    assert post(chats, CHAT, BODIES[CHAT], **{"X-Api-Key": "secret"}).status_code == 200
    assert post(chats, CHAT, BODIES[CHAT], authorization="Bearer secret").status_code == 200
