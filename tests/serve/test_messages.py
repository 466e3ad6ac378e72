"""The `anthropic` package's calls, unchanged, against the fake model."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx
import pytest

from pipeline.serve.key_lines import key_lines
from pipeline.serve.keys import Keys
from tests.serve.live import Live, until
from tests.serve.scripted import live_script
from tests.serve.wire import post

HELLO: Any = [{"role": "user", "content": "hello"}]
ASKED: dict[str, Any] = {"model": "local", "max_tokens": 200, "messages": HELLO}
# Newer clients have no names for these fields of the API.
SURE: Any = {"extra_body": {"temperature": 0}}
CITY = {"type": "string", "maxLength": 9}
TOOLS: Any = [
    {
        "name": name,
        "description": "tells",
        "input_schema": {"type": "object", "properties": {"city": CITY}, "required": ["city"]},
    }
    for name in ("weather", "search")
]
CALLS = [
    {"name": "weather", "arguments": {"city": "Zürich"}},
    {"name": "search", "arguments": {"city": "Rome"}},
]
SAID = "Let me see." + "".join(
    f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>" for call in CALLS
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}{# <think> </think> #}"
)


def client(live: Live, key: str = "none") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=live.url, api_key=key, max_retries=0)


def both(live: Live, **asked: Any) -> tuple[Any, list[Any]]:
    """The message, which is the same streamed, and the events."""
    with client(live) as ai:
        whole = ai.messages.create(**ASKED | SURE | asked)
        with ai.messages.stream(**ASKED | SURE | asked) as stream:
            events = list(stream)
            streamed = stream.get_final_message()
    assert told(streamed) == told(whole)
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    return whole, events


def told(message: Any) -> dict[str, Any]:
    """Without what differs from request to request, and what the package adds."""
    blocks = [block.to_dict() for block in message.content]
    content = [{k: v for k, v in block.items() if k not in ("parsed_output", "id")} for block in blocks]
    return {"content": content} | {
        name: getattr(message, name) for name in ("stop_reason", "stop_sequence", "role", "model")
    }


def test_a_message():
    with live_script("Grüße 👩‍👩‍👧!") as live:
        whole, events = both(live, system="Be brief.")
    assert whole.id.startswith("msg_") and whole.type == "message"
    (block,) = whole.content
    assert (block.type, block.text) == ("text", "Grüße 👩‍👩‍👧!")
    assert (whole.stop_reason, whole.stop_sequence) == ("end_turn", None)
    assert whole.usage.input_tokens + whole.usage.cache_read_input_tokens > 5
    kinds = [event.type for event in events if event.type != "text"]
    begin = ["message_start", "content_block_start", "content_block_delta"]
    assert kinds[:3] == begin and kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_events_are_anthropics():
    with live_script("ab") as live:
        text = post(live, "/v1/messages", ASKED | SURE["extra_body"] | {"stream": True}).text
    events = [event.split("\n") for event in text.removesuffix("\n\n").split("\n\n")]
    told = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]
    assert all(name == data["type"] for name, data in told)
    assert [name for name, _ in told] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = told[0][1]["message"]
    assert start["content"] == [] and start["stop_reason"] is None and start["usage"]["input_tokens"] > 5
    end = told[-2][1]
    assert end["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert end["usage"]["output_tokens"] == 3


def test_tools_are_called_and_their_results_come_back():
    with live_script(SAID) as live:
        whole, _ = both(live, tools=TOOLS)
        text, *calls = whole.content
        assert text.text == "Let me see." and whole.stop_reason == "tool_use"
        assert [{"name": call.name, "arguments": call.input} for call in calls] == CALLS
        assert len({call.id for call in calls}) == 2
        results: Any = [
            {"type": "tool_result", "tool_use_id": calls[0].id, "content": "sunny"},
            {"type": "tool_result", "tool_use_id": calls[1].id, "content": [{"type": "text", "text": "no"}]},
            {"type": "text", "text": "And now?"},
        ]
        turns = [
            *HELLO,
            {"role": "assistant", "content": whole.content},
            {"role": "user", "content": results},
        ]
        with client(live) as ai:
            assert ai.messages.create(**ASKED | SURE | {"messages": turns, "tools": TOOLS}).content
            counted = ai.messages.count_tokens(model="local", messages=turns, tools=TOOLS).input_tokens
            assert counted > ai.messages.count_tokens(model="local", messages=HELLO).input_tokens


def test_a_tool_that_must_be_called():
    with live_script("{") as live:
        for choice in (
            {"type": "tool", "name": "search"},
            {"type": "any", "disable_parallel_tool_use": True},
        ):
            whole, _ = both(live, tools=TOOLS[1:], tool_choice=choice)
            assert whole.stop_reason == "tool_use" and whole.content[-1].name == "search"
        none, _ = both(live, tools=TOOLS, tool_choice={"type": "none"})
        assert none.stop_reason == "end_turn"


def test_thinking_is_a_block_of_its_own():
    with live_script("<think>\nWhy?\n</think>\n\nBecause.", THINKING) as live:
        whole, _ = both(live)
        assert [block.type for block in whole.content] == ["thinking", "text"]
        assert (whole.content[0].thinking, whole.content[1].text) == ("Why?", "Because.")
        back = [*HELLO, {"role": "assistant", "content": whole.content}, *HELLO]
        assert both(live, messages=back)[0].content == whole.content


def test_why_a_message_ends():
    with live_script("one, two, three") as live:
        whole, _ = both(live, stop_sequences=["five", ", t", "th"])
        assert (whole.content[0].text, whole.stop_reason, whole.stop_sequence) == (
            "one",
            "stop_sequence",
            ", t",
        )
        assert both(live, max_tokens=3)[0].stop_reason == "max_tokens"
        assert both(live, stop_sequences=["five"])[0].stop_reason == "end_turn"


def test_structured_answers(chats):
    form = {"type": "json_schema", "schema": {"enum": ["good", "bad"]}}
    whole, _ = both(chats, output_config={"format": form})
    assert whole.content[0].text in ('"good"', '"bad"')


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"model": "other"}, anthropic.NotFoundError, 'the model "other"'),
        ({"extra_body": {"temperature": 7}}, anthropic.BadRequestError, "temperature must be"),
        ({"extra_body": {"nonsense": 1}}, anthropic.BadRequestError, "nonsense is not supported"),
        ({"messages": []}, anthropic.BadRequestError, "messages must be"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, anthropic.BadRequestError, "messages: 5"),
        (
            {"messages": [*HELLO, {"role": "assistant", "content": "I"}]},
            anthropic.BadRequestError,
            "[1].role",
        ),
        ({"stop_sequences": [""]}, anthropic.BadRequestError, "stop_sequences[0] must be"),
        (
            {"tools": [{"name": "a b", "input_schema": {}}]},
            anthropic.BadRequestError,
            "tools[0].name must be",
        ),
        ({"tools": [{"type": "bash_20250124", "name": "b"}]}, anthropic.BadRequestError, "tools[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            anthropic.BadRequestError,
            "messages[0].content[0].type",
        ),
        (
            {"system": "s", "messages": [*HELLO, {"role": "user", "content": [{"type": "text"}]}]},
            anthropic.BadRequestError,
            "messages[1].content[0].text",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_said_as_anthropic_says_it(chats, asked, error, said, stream):
    with client(chats) as ai, pytest.raises(error) as refused:
        ai.messages.create(**ASKED | asked, stream=stream)
    body = refused.value.body
    assert body.keys() == {"type", "error"} and body["type"] == "error"
    assert said in body["error"]["message"]
    assert refused.value.request_id.startswith("req_")


def test_max_tokens_is_asked_for(chats):
    answer = post(chats, "/v1/messages", {"messages": HELLO})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert post(chats, "/v1/messages", [1]).status_code == 400
    assert post(chats, "/v1/messages/nothing", {}).json()["error"]["type"] == "not_found_error"


def test_keys_are_anthropics(chats, monkeypatch):
    monkeypatch.setattr(chats.door, "keys", Keys(key_lines("ann:secret", "test"), "test", "true"))
    with client(chats, "secret") as ai:
        assert ai.messages.count_tokens(model="local", messages=HELLO).input_tokens > 5
    with client(chats, "other") as ai, pytest.raises(anthropic.AuthenticationError) as refused:
        ai.messages.create(**ASKED)
    assert refused.value.body["error"]["type"] == "authentication_error"


def test_an_error_in_mid_stream_is_raised():
    with live_script("x" * 50) as live, client(live) as ai:
        model = live.model
        model.fails = lambda batch: 1 / (model.calls <= 5)
        with pytest.raises(anthropic.APIStatusError) as refused:
            list(ai.messages.create(**ASKED, stream=True))
    assert refused.value.body["error"]["type"] == "overloaded_error"


def test_a_client_that_leaves_frees_its_place(chats):
    body = {"model": "local", "messages": HELLO, "max_tokens": 3500, "stream": True, "temperature": 2}
    with httpx.stream("POST", f"{chats.url}/v1/messages", json=body) as answer:
        next(answer.iter_lines())
    until(lambda: chats.idle)
