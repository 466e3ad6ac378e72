"""Output rows are OpenAI's responses: OpenAI's own types are the referee, before and after Parquet."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion, CompletionUsage, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject

from pipeline.answer.answer import Embedded, Usage
from pipeline.answer.answer_columns import response_schema
from pipeline.answer.answers import Answers, tally
from pipeline.answer.openai_body import to_openai
from pipeline.engine.sequence import Generation
from pipeline.errors import ConfigError, RowError
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.generated import CHAT, COMPLETION, NOTHING, embed, generate, generations, said, through_parquet


def vectors(count: int) -> Embedded:
    return Embedded(np.eye(count, 4, dtype=np.float32) / 3, Usage(7))


@given(st.lists(generations(), min_size=1, max_size=3))
def test_a_chat_is_a_chat_completion(choices: list[Generation]) -> None:
    record = generate.chat(Row("a", CHAT), choices, 1)
    (read,) = through_parquet(generate, record)
    assert to_openai(read) == json.loads(json.dumps(to_openai(record)))
    body = ChatCompletion.model_validate(to_openai(read), strict=True)
    assert body.id.startswith("chatcmpl-")
    assert [choice.index for choice in body.choices] == list(range(len(choices)))
    assert [choice.message.content for choice in body.choices] == [g.text for g in choices]
    assert read["text"] == choices[0].text
    assert read["finish_reason"] == body.choices[0].finish_reason
    check_usage(body.usage, choices)


@given(st.lists(generations(), min_size=1, max_size=3))
def test_a_completion_is_a_completion(choices: list[Generation]) -> None:
    record = generate.completion(Row("a", COMPLETION), choices, 1)
    (read,) = through_parquet(generate, record)
    assert to_openai(read) == json.loads(json.dumps(to_openai(record)))
    body = Completion.model_validate(to_openai(read), strict=True)
    assert body.id.startswith("cmpl-")
    assert [choice.text for choice in body.choices] == [g.text for g in choices]
    assert read["text"] == choices[0].text
    check_usage(body.usage, choices)


def check_usage(usage: CompletionUsage | None, choices: list[Generation]) -> None:
    """The prompt counts once, however many choices it got."""
    assert usage is not None
    assert usage.prompt_tokens == choices[0].prompt_tokens
    assert usage.completion_tokens == sum(len(g.tokens) for g in choices)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == choices[0].cached_tokens


@given(generations())
def test_keys_that_openai_always_sends_are_there(generation: Generation) -> None:
    (chat,) = through_parquet(generate, generate.chat(Row("a", CHAT), [generation], 1))
    (completion,) = through_parquet(generate, generate.completion(Row("a", COMPLETION), [generation], 1))
    (choice,), (other) = to_openai(chat)["choices"], to_openai(completion)["choices"][0]
    assert choice.keys() == {"index", "message", "finish_reason", "logprobs"}
    assert choice["message"] == {"role": "assistant", "content": generation.text, "refusal": None}
    assert other.keys() == {"index", "text", "finish_reason", "logprobs"}
    assert (choice["logprobs"] is None) == (other["logprobs"] is None) == (not generation.logprobs)


@pytest.mark.parametrize("asked", ["one", ["one"], ["one", "two", "three"], [1, 2], [[1], [2]]])
def test_an_embedding_has_one_vector_an_input(asked: Any) -> None:
    request = parse_request("/v1/embeddings", {"input": asked})
    found = vectors(len(request.inputs))
    (record,) = through_parquet(embed, embed.embedding(Row("a", request), found, 1))
    body = CreateEmbeddingResponse.model_validate(to_openai(record), strict=True)
    assert np.array_equal(np.float32([item.embedding for item in body.data]), found.vectors)
    assert [item.index for item in body.data] == list(range(len(found.vectors)))
    assert record["embedding"] == found.vectors[0].tolist()
    assert (record["data"] is None) == request.single
    assert body.usage.prompt_tokens == body.usage.total_tokens == 7


@pytest.mark.parametrize("answers", [generate, embed])
def test_an_error_keeps_its_place_and_has_no_usage(answers: Answers) -> None:
    error = RowError("model_not_found", "no such model", "model")
    (record,) = through_parquet(answers, answers.error("a", error, 2))
    assert to_openai(record)["error"].keys() == {"message", "type", "param", "code"}
    details = ErrorObject.model_validate(to_openai(record)["error"])
    assert (details.code, details.param, details.type) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert (record["status_code"], record["attempts"], record["usage"]) == (404, 2, None)


def test_ids_are_a_function_of_job_and_row() -> None:
    generation = Generation("x", (1,), "stop", 1, 0)

    def of(job: str, row: str) -> str:
        return str(Answers("m", job, NOTHING).chat(Row(row, CHAT), [generation], 1)["id"])

    assert of("job", "a") == of("job", "a")
    assert len({of("job", "a"), of("job", "b"), of("job 2", "a")}) == 3
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", of("job", "a"))
    fingerprint = generate.chat(Row("a", CHAT), [generation], 1)["system_fingerprint"]
    assert re.fullmatch(r"fp_[0-9a-f]{10}", fingerprint)


def test_kept_columns_follow_the_contracts() -> None:
    kept = pa.table({"label": ["x"], "score": pa.array([1], pa.int8())})
    answers = Answers("m", "f", kept.schema)
    table = answers.table([answers.error("a", RowError("invalid_request", "no"), 1)], kept)
    assert table.schema.names[-2:] == ["label", "score"]
    assert table.schema.equals(response_schema("generate", kept.schema))
    assert table.select(["label", "score"]).equals(kept)


@pytest.mark.parametrize("names", [["usage"], ["a", "a"]])
def test_a_kept_name_that_is_taken_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"output.keep: {names[-1]}"):
        response_schema("generate", pa.schema([(name, pa.string()) for name in names]))


@given(st.lists(st.one_of(generations(), st.none()), max_size=6))
def test_a_tally_counts_every_row_once(outcomes: list[Generation | None]) -> None:
    failure = generate.error("b", RowError("server_error", "no"), 3)
    rows = [generate.chat(Row("a", CHAT), [g], 1) if g else failure for g in outcomes]
    total = tally(through_parquet(generate, *rows), seconds=2.0)
    answered = [g for g in outcomes if g]
    assert (total.rows, total.succeeded) == (len(outcomes), len(answered))
    assert total.failed == total.rows - total.succeeded
    assert total.prompt_tokens == sum(g.prompt_tokens for g in answered)
    assert total.completion_tokens == sum(g.completion_tokens for g in answered)
    assert total.cached_tokens == sum(g.cached_tokens for g in answered)
    assert total.attempts == len(answered) + 3 * total.failed
    assert total.seconds == 2.0


def test_a_reused_answer_cost_no_prompt_and_is_counted() -> None:
    fresh = generate.chat(Row("a", CHAT), [said("so")], 1)
    again = generate.chat(Row("b", CHAT), [said("so")], 1, reused=True)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == again["usage"]["prompt_tokens"]
    assert fresh["id"] != again["id"]
    assert tally([fresh, again], seconds=1.0).reused == 1
    assert "reused" not in generate.schema.names
