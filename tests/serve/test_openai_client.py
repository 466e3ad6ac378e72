"""The `openai` package's calls, unchanged, against the fake model."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.serve.live import Live

HELLO: Any = [{"role": "user", "content": "hello"}]


def client(live: Live, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0, **options)


@pytest.fixture
def ai(chats):
    with client(chats) as made:
        yield made


def test_a_chat(ai):
    answer = ai.chat.completions.create(model="local", messages=HELLO, max_tokens=9, seed=1)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.system_fingerprint) == ("chat.completion", "org/fake", "fp_1")
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("n", [1, 3])
def test_a_streamed_chat_is_the_unstreamed_one(ai, n):
    asked: dict[str, Any] = {"model": "local", "messages": HELLO, "max_tokens": 40, "seed": 4, "n": n}
    asked |= {"logprobs": True, "extra_body": {"ignore_eos": True}}
    whole = ai.chat.completions.create(**asked)
    chunks = list(ai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    for expected in whole.choices:
        own = [choice for choice in choices if choice.index == expected.index]
        assert "".join(choice.delta.content or "" for choice in own) == expected.message.content
        listed = [token for choice in own if choice.logprobs for token in choice.logprobs.content]
        assert listed == expected.logprobs.content
        assert [choice.finish_reason for choice in own if choice.finish_reason] == [expected.finish_reason]
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_chunks_are_openais(ai):
    stream = ai.chat.completions.create(
        model="local",
        messages=HELLO,
        max_tokens=5,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    heads = {(c.id, c.created, c.model, c.system_fingerprint, c.object) for c in chunks}
    assert len(heads) == 1
    assert [c.choices[0].index for c in chunks[:2]] == [0, 1]
    assert all(c.choices[0].delta.role == "assistant" for c in chunks[:2])
    assert all(c.choices[0].delta.role is None for c in chunks[2:-1])
    *before, last = chunks
    assert all(c.usage is None for c in before)
    assert (last.choices, last.usage.total_tokens > 0) == ([], True)
    for index in (0, 1):
        ends = [c.choices[0] for c in before if c.choices[0].index == index]
        assert ends[-1].finish_reason and not ends[-1].delta.model_dump(exclude_none=True)


def test_a_streamed_completion_is_the_unstreamed_one(ai):
    asked: dict[str, Any] = {
        "model": "local",
        "prompt": "hello",
        "max_tokens": 30,
        "seed": 4,
        "logprobs": 1,
        "echo": True,
    }
    whole = ai.completions.create(**asked)
    chunks = list(ai.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert {c.object for c in chunks} == {"text_completion"}
    assert "".join(c.choices[0].text for c in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_structured_answers(ai):
    answer = ai.chat.completions.create(
        model="local",
        messages=HELLO,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "mood", "schema": {"enum": ["good", "bad"]}},
        },
    )
    assert answer.choices[0].message.content in ('"good"', '"bad"')


def test_models(ai):
    assert [model.id for model in ai.models.list()] == ["org/fake"]
    assert ai.models.retrieve("org/fake").owned_by == "nightherd"
    with pytest.raises(openai.NotFoundError) as refused:
        ai.models.retrieve("gpt-5")
    assert refused.value.code == "model_not_found"


def test_embeddings_come_as_base64_unless_floats_are_asked_for(vectors):
    with client(vectors) as ai:
        plain = ai.embeddings.create(model="local", input=["a", "b"], encoding_format="float")
        packed = ai.embeddings.create(model="local", input=["a", "b"])
    assert len(plain.data) == 2
    assert [d.embedding for d in packed.data] == [pytest.approx(d.embedding) for d in plain.data]
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0


@pytest.mark.parametrize(
    ("asked", "error", "param"),
    [
        ({"model": "other"}, openai.NotFoundError, "model"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"extra_body": {"nonsense": 1}}, openai.BadRequestError, "nonsense"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, openai.BadRequestError, "messages"),
        ({"messages": []}, openai.BadRequestError, "messages"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_said_before_anything_is_sent(ai, asked, error, param, stream):
    with pytest.raises(error) as refused:
        ai.chat.completions.create(**{"model": "local", "messages": HELLO, "stream": stream} | asked)
    assert refused.value.param == param
    assert refused.value.request_id.startswith("req_")


def test_the_wrong_kind_of_model_is_said(ai, vectors):
    with pytest.raises(openai.BadRequestError, match="use an embedding model"):
        ai.embeddings.create(model="local", input="a")
    with client(vectors) as other, pytest.raises(openai.BadRequestError, match="use a generative model"):
        other.chat.completions.create(model="local", messages=HELLO)
