"""llama-server's own routes and fields: tokens, templates, timings, and what is known of the model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.serve.live import until
from tests.serve.wire import CHAT, COMPLETION, HELLO, events, post


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_text_becomes_tokens_and_text_again(chats, prefix):
    text = "grüße 👩‍👩‍👧 <|im_end|>"
    tokens = post(chats, f"{prefix}/tokenize", {"content": text}).json()["tokens"]
    assert tokens == [*text.removesuffix("<|im_end|>").encode(), 259]
    assert post(chats, f"{prefix}/detokenize", {"tokens": tokens}).json() == {"content": text}


def test_tokenize_as_llama_server_does(chats):
    def tokens(**body: Any) -> Any:
        return post(chats, "/tokenize", body).json()["tokens"]

    assert tokens(content="a", add_special=True) == [256, 97]
    assert tokens(content="</s>", parse_special=False) == [*b"</s>"]
    assert tokens(content=["a", 98, "c</s>"], add_special=True) == [256, 97, 98, 99, 257]
    assert tokens(content="é</s>", with_pieces=True) == [
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA9, "piece": [0xA9]},
        {"id": 257, "piece": "</s>"},
    ]
    assert tokens(content="") == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": ["a", {}]}, "content[1]"),
        ("/tokenize", {"content": ["a", 260]}, "content[1]"),
        ("/tokenize", {"content": "a", "with_pieces": 1}, "with_pieces"),
        ("/tokenize", {"content": "a", "other": 1}, "other"),
        ("/detokenize", {"tokens": [1, -1]}, "tokens[1]"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
    ],
)
def test_what_is_wrong_is_named(chats, path, body, param):
    answer = post(chats, path, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_template_is_applied_however_long_the_chat_is(chats):
    prompt = post(chats, "/apply-template", {"messages": HELLO}).json()["prompt"]
    assert prompt == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    long = [{"role": "user", "content": "x" * 9000}]
    assert len(post(chats, "/apply-template", {"messages": long}).json()["prompt"]) > 9000


def test_tokens_need_no_chats(vectors):
    assert post(vectors, "/tokenize", {"content": "a"}).status_code == 200
    assert (
        "embeddings only" in post(vectors, "/apply-template", {"messages": HELLO}).json()["error"]["message"]
    )


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, {"messages": HELLO}), (COMPLETION, {"prompt": ["a", "b"]})]
)
def test_timings_where_they_are_asked_for(chats, path, body):
    body |= {"max_tokens": 5, "ignore_eos": True}
    whole = post(chats, path, body | {"timings_per_token": True}).json()
    last = events(chats, path, body | {"timings_per_token": True})[-1]
    assert last["choices"] == [] and "usage" not in last
    for told in (whole["timings"], last["timings"]):
        choices = 2 if path == COMPLETION else 1
        assert told["predicted_n"] == 5 * choices and told["predicted_ms"] > 0
        assert told["cache_n"] + told["prompt_n"] == whole["usage"]["prompt_tokens"]
        assert told["prompt_ms"] >= 0 and told["predicted_per_second"] > 0
    assert "timings" not in post(chats, path, body).json()
    assert all("timings" not in event for event in events(chats, path, body))


def test_what_is_known_of_the_model(chats, vectors):
    def meta(live: Any) -> Any:
        return httpx.get(f"{live.url}/v1/models/local").json()["meta"]

    assert meta(chats) == {"kind": "generate", "n_ctx": 4096, "n_vocab": 260}
    assert meta(vectors)["kind"] == "embed"


def test_metrics_have_the_names_that_dashboards_know(chats):
    def now() -> dict[str, float]:
        found = [line.split(" ") for line in httpx.get(f"{chats.url}/metrics").text.splitlines()]
        return {name.partition("{")[0]: float(value) for name, value in (f for f in found if len(f) == 2)}

    until(lambda: chats.idle)
    before = now()
    events(chats, CHAT, {"messages": HELLO, "max_tokens": 9, "ignore_eos": True})
    until(lambda: chats.idle)
    after = now()
    assert after["llamacpp:tokens_predicted_total"] >= before["llamacpp:tokens_predicted_total"] + 9
    assert after["llamacpp:prompt_tokens_total"] > before["llamacpp:prompt_tokens_total"]
    assert after["llamacpp:prompt_tokens_total"] <= after["vllm:prompt_tokens_total"]
    for name in ("vllm:time_to_first_token_seconds_count", "vllm:e2e_request_latency_seconds_count"):
        assert after[name] > before[name]
    assert {"vllm:inter_token_latency_seconds_count", "vllm:num_requests_waiting"} <= after.keys()


def test_the_cells_that_rows_hold_are_told(chats):
    def held() -> float:
        return float(chats.service.pulse().held_cells)

    until(lambda: chats.idle)
    body = {"messages": HELLO, "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", chats.url + CHAT, json=body) as answer:
        next(answer.iter_lines())
        until(lambda: held() > 0)
        cells = held() * 16384
    assert 1000 <= cells < 1000 + 100
    until(lambda: chats.idle)
    post(chats, CHAT, {"messages": HELLO, "max_tokens": 1})
    until(lambda: held() == 0)
