"""Reports about the frame of streams: usage, errors, refusals."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel
from tests.serve.live import ABOUT, Live, generative, served, until
from tests.serve.wire import CHAT, COMPLETION, HELLO, choices, events, lines, post

ASKED = {CHAT: {"messages": HELLO}, COMPLETION: {"prompt": "hello"}}


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
@pytest.mark.parametrize("n", [1, 2])
def test_the_chunk_of_usage_has_no_choices(chats, path, n):
    """llama.cpp#15443; of completions, ogx#6541."""
    *parts, last = events(
        chats, path, ASKED[path] | {"n": n, "max_tokens": 4, "stream_options": {"include_usage": True}}
    )
    assert last["choices"] == []
    assert (
        last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    )
    assert all(part["usage"] is None and part["choices"] for part in parts)
    assert all("usage" not in part for part in events(chats, path, ASKED[path] | {"max_tokens": 4}))


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_a_prompt_that_is_too_long_is_a_400_before_the_stream(chats, path):
    """llama.cpp#14566."""
    long = {CHAT: {"messages": [{"role": "user", "content": "x" * 5000}]}, COMPLETION: {"prompt": "x" * 5000}}
    answer = post(chats, path, long[path] | {"stream": True})
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_an_error_in_mid_stream_is_an_event_and_the_stream_ends():
    """llama.cpp#16104: the error is inside of data. mistral.rs#1874: the stream is closed behind it."""
    model = FakeModel()

    def fails(batch: object) -> None:
        if model.calls > 5:
            raise RuntimeError("out of order")

    model.fails = fails
    engine = Engine(model, slots=2)
    with served(generative(model, engine), engine) as live:
        found = lines(live, CHAT, {"messages": HELLO, "logit_bias": {"257": -100, "259": -100}})
    assert found[-1] == "data: [DONE]"
    error = json.loads(found[-2].removeprefix("data: "))
    assert error.keys() == {"error"} and error["error"].keys() == {"message", "type", "param", "code"}
    assert error["error"]["code"] == "service_unavailable"
    before = [json.loads(line.removeprefix("data: ")) for line in found[:-2]]
    assert any(choice["delta"].get("content") for choice in choices(before))


@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_all_that_a_stream_says_has_one_head(chats: Live, path):
    """lmstudio#1988: created is there, in seconds, and paths may have doubled slashes."""
    told = events(chats, path.replace("/", "//"), ASKED[path] | {"max_tokens": 3})
    heads = {tuple(part[name] for name in ("id", "object", "created", "model")) for part in told}
    assert len(heads) == 1
    assert abs(heads.pop()[2] - time.time()) < 60
    for doubled in (f"/{path}", f"{path}/"):
        whole = post(chats, doubled, ASKED[path] | {"max_tokens": 3})
        assert whole.status_code == 200 and abs(whole.json()["created"] - time.time()) < 60


def test_two_clients_that_ask_the_same_do_not_end_together(chats: Live):
    """One of them leaves; the other has its whole answer."""
    body = {"messages": HELLO, "temperature": 0, "max_tokens": 200, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", chats.url + CHAT, json=body) as first:
        next(first.iter_lines())
        with httpx.stream("POST", chats.url + CHAT, json=body, timeout=30) as second:
            first.close()
            told = [json.loads(line[6:]) for line in second.iter_lines() if line.startswith("data: {")]
    assert choices(told)[-1]["finish_reason"] == "length"
    assert {part["model"] for part in told} == {ABOUT.model}
    until(lambda: chats.idle)
