"""A list of prompts in one completion request (modular/max#293): a choice for each, times n."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.serve.live import Live, until
from tests.serve.test_openai_client import client

TEXTS: Any = ["one", "two, longer", "three"]
TOKENS: Any = [list(text.encode()) for text in TEXTS]


def asked(prompts: Any, n: int, **more: Any) -> dict[str, Any]:
    return {"model": "local", "prompt": prompts, "n": n, "seed": 3, "max_tokens": 30, "logprobs": 1} | more


@pytest.mark.parametrize("prompts", [TEXTS, TOKENS, [*TEXTS[:2], TOKENS[2]]])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("echo", [False, True])
def test_each_prompt_has_the_choices_that_it_has_alone(chats, prompts, n, echo):
    with client(chats) as ai:
        whole = ai.completions.create(**asked(prompts, n, echo=echo))
        alone = [ai.completions.create(**asked(prompt, n, echo=echo)) for prompt in prompts]
        chunks = list(
            ai.completions.create(
                **asked(prompts, n, echo=echo), stream=True, stream_options={"include_usage": True}
            )
        )
    assert [choice.index for choice in whole.choices] == list(range(len(prompts) * n))
    expected = [choice for answer in alone for choice in answer.choices]
    for choice, own in zip(whole.choices, expected, strict=True):
        # With a seed, the first choice of each is the same; the others are drawn by the request's name.
        assert choice.model_dump(exclude={"index"}) == own.model_dump(exclude={"index"})
    tokens = sum(answer.usage.prompt_tokens for answer in alone if answer.usage)
    assert whole.usage and whole.usage.prompt_tokens == tokens
    *parts, last = chunks
    assert last.choices == [] and last.usage.total_tokens == whole.usage.total_tokens
    for choice in whole.choices:
        mine = [c.choices[0] for c in parts if c.choices[0].index == choice.index]
        assert "".join(part.text for part in mine) == choice.text
        assert mine[-1].finish_reason == choice.finish_reason


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ["a", "x" * 5000]}, "prompt[1]"),
        ({"prompt": ["a", 3]}, "prompt[1]"),
        ({"prompt": [[1, 2], [1, 999]]}, "prompt[1][1]"),
        ({"prompt": [[1, 2], [1, "a"]]}, "prompt[1][1]"),
        ({"prompt": ["a", "b"], "temperature": 5}, "temperature"),
        ({"prompt": ["a", "b"], "model": "other"}, "model"),
        ({"prompt": ["a"] * 600, "n": 2}, "prompt"),
    ],
)
def test_the_prompt_that_is_wrong_is_named_and_nothing_goes_on(chats: Live, body, param):
    with client(chats) as ai, pytest.raises(openai.APIStatusError) as refused:
        ai.completions.create(**{"model": "local"} | body)
    assert refused.value.param == param and refused.value.status_code in (400, 404)
    until(lambda: chats.idle)


def test_a_client_that_leaves_frees_all_of_its_prompts(chats: Live):
    more = {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}
    with client(chats) as ai, ai.completions.create(**asked(TEXTS, 2, stream=True, **more)) as stream:
        next(iter(stream))
        assert not chats.idle
    until(lambda: chats.idle)
