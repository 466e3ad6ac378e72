"""Reports about the text of streams: stop strings, characters, log-probabilities."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.scripted import live_script
from tests.serve.wire import CHAT, GREEDY, choices, events, post

TEXT = "Grüße an alle 👩‍👩‍👧, <|end of the line, 日本語のテキスト<|end_of_turn|> and more"
STOPS: Any = [[], ["<|end_of_turn|>"], ["<|end_of_turn|>", "never", "日本酒"]]


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("logprobs", [False, True])
def test_text_is_told_at_once_and_no_chunk_is_empty(stop, logprobs):
    """vllm#13087, #37795; llama.cpp#28926: no character comes in parts."""
    asked = GREEDY | {"stop": stop, "logprobs": logprobs}
    with live_script(TEXT) as live:
        whole = post(live, CHAT, asked).json()["choices"][0]
        first, *parts, last = choices(events(live, CHAT, asked))
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert last["delta"] == {} and last["finish_reason"] == "stop"
    told = [part["delta"]["content"] for part in parts]
    assert all(told) and not any("\ufffd" in text for text in told)
    expected = TEXT.partition("<|end_of_turn|>")[0] if stop else TEXT
    assert "".join(told) == whole["message"]["content"] == expected
    # Each character by itself, but where a stop string may have begun.
    assert len(told) > len(expected) - 25
    if logprobs:
        listed = [
            token for part in [*parts, last] if part["logprobs"] for token in part["logprobs"]["content"]
        ]
        assert listed == whole["logprobs"]["content"]
        for part in parts:
            told_bytes = bytes(b for token in part["logprobs"]["content"] for b in token["bytes"])
            assert told_bytes == part["delta"]["content"].encode()


@pytest.mark.parametrize("n", [1, 3])
def test_each_choice_has_its_index(chats, n):
    """litellm#3276."""
    body = {"messages": [{"role": "user", "content": "hi"}], "n": n, "seed": 5, "max_tokens": 9}
    whole = post(chats, CHAT, body).json()["choices"]
    told = events(chats, CHAT, body)
    assert [choice["index"] for choice in whole] == list(range(n))
    assert [event["choices"][0]["index"] for event in told[:n]] == list(range(n))
    for choice in whole:
        parts = choices(told, choice["index"])
        content = "".join(part["delta"].get("content") or "" for part in parts)
        assert content == choice["message"]["content"]


def test_reasoning_is_told_apart():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# <think> </think> #}"
    )
    with live_script("<think>\nWhy?\n</think>\n\nBecause.", template) as live:
        whole = post(live, CHAT, GREEDY).json()["choices"][0]["message"]
        parts = choices(events(live, CHAT, GREEDY))
    for name, expected in (("reasoning_content", "Why?"), ("content", "Because.")):
        assert "".join(part["delta"].get(name) or "" for part in parts) == whole[name] == expected
    assert not any({"reasoning_content", "content"} <= part["delta"].keys() for part in parts[1:])
    assert json.dumps(whole).count("think") == 0
