"""Reports about tool calls, streamed and not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.serve.scripted import live_script
from tests.serve.wire import CHAT, GREEDY, choices, events, post

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "search")
]
ASKED = GREEDY | {"tools": TOOLS}
CALLS = [
    {"name": "weather", "arguments": {"city": "Zürich"}},
    {"name": "search", "arguments": {"city": "Rome"}},
]
SAID = "".join(f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in CALLS)


@pytest.mark.parametrize("beginning", ["", "Let me see. "])
def test_each_delta_of_a_call_has_its_index_and_the_first_alone_its_id(beginning):
    """ollama#7881, mistral.rs#1507: the index is always there. codex#7517: id and name come once."""
    with live_script(beginning + SAID) as live:
        whole = post(live, CHAT, ASKED).json()["choices"][0]
        parts = choices(events(live, CHAT, ASKED))
    found: dict[int, dict[str, Any]] = {}
    for call in (call for part in parts for call in part["delta"].get("tool_calls", ())):
        if call["index"] not in found:
            assert call["id"] and call["type"] == "function" and call["function"]["name"]
            assert call["index"] == len(found)
            found[call["index"]] = {**call["function"], "id": call["id"]}
        else:
            assert call.keys() == {"index", "function"} and call["function"].keys() == {"arguments"}
            found[call["index"]]["arguments"] += call["function"]["arguments"]
    assert len({call["id"] for call in found.values()}) == 2
    told = [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in found.values()]
    assert told == CALLS
    assert [call["function"] for call in whole["message"]["tool_calls"]] == [
        {"name": call["name"], "arguments": call["arguments"]} for call in found.values()
    ]
    assert parts[-1]["finish_reason"] == whole["finish_reason"] == "tool_calls"
    content = "".join(part["delta"].get("content") or "" for part in parts)
    assert content == (whole["message"]["content"] or "") == beginning.strip()


@pytest.mark.parametrize(
    ("choice", "stop"), [("auto", len(SAID) // 3), ("auto", len(SAID) - 20), ("required", len(SAID) // 3)]
)
def test_a_call_that_was_cut_off_ends_with_length(choice, stop):
    """vllm#53269."""
    asked = ASKED | {"max_tokens": stop, "tool_choice": choice}
    with live_script(SAID) as live:
        whole = post(live, CHAT, asked).json()["choices"][0]
        parts = choices(events(live, CHAT, asked))
    assert whole["finish_reason"] == parts[-1]["finish_reason"] == "length"


def test_without_calls_nothing_speaks_of_them():
    """vllm#53255."""
    with live_script("It is sunny.") as live:
        whole = post(live, CHAT, ASKED).json()["choices"][0]
        parts = choices(events(live, CHAT, ASKED))
    assert "tool_calls" not in whole["message"]
    assert all("tool_calls" not in part["delta"] for part in parts)
    assert whole["finish_reason"] == parts[-1]["finish_reason"] == "stop"


def test_the_logprobs_of_withheld_calls_are_told():
    """vllm#37795."""
    asked = ASKED | {"logprobs": True}
    with live_script(SAID) as live:
        whole = post(live, CHAT, asked).json()["choices"][0]
        parts = choices(events(live, CHAT, asked))
    listed = [token for part in parts if part["logprobs"] for token in part["logprobs"]["content"]]
    assert listed == whole["logprobs"]["content"]
    assert bytes(b for token in listed for b in token["bytes"]).decode().startswith(SAID)
