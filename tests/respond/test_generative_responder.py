"""What rows get that ask for more than a text: on the fake model, through the engine, as answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answer.answers import Answers
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.job.actors.answer_board import AnswerBoard
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService

CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}


class Case:
    """A responder over a fake model, and how many tokens the model has decoded."""

    def __init__(self, limit: int | None = None, **options: Any) -> None:
        self.model = FakeModel(cells=4096, max_sequences=9, context=512)
        self.decoded = 0
        self.model.fails = self._count
        vocabulary = self.model.vocabulary
        self.responder = GenerativeResponder(
            GenerativeService(
                Runner(Engine(self.model, slots=8)),
                vocabulary,
                context=512,
                deadlines=Deadlines(60),
                limit=limit,
            ),
            Answers("m", "0", pa.schema([]), vocabulary=vocabulary),
            **options,
        )

    def ask(self, *bodies: dict[str, Any], endpoint: str = "/v1/chat/completions") -> list[dict[str, Any]]:
        rows = [Row(f"r{at}", parse_request(endpoint, body)) for at, body in enumerate(bodies)]  # type: ignore[arg-type]
        return self.responder.respond(rows, 1)

    def _count(self, batch: Any) -> None:
        self.decoded += len(batch)


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    yield made
    made.responder.close()


def test_equal_rows_with_one_answer_are_computed_once(case):
    greedy = CHAT | {"temperature": 0}
    first, again, other = case.ask(greedy, greedy, greedy | {"max_tokens": 3})
    assert again["choices"] == first["choices"]
    assert (first["reused"], again["reused"], other["reused"]) == (False, True, False)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == again["usage"]["prompt_tokens"]
    assert again["usage"]["completion_tokens"] == first["usage"]["completion_tokens"]
    decoded = case.decoded
    (later,) = case.ask(greedy)
    assert later["choices"] == first["choices"]
    assert case.decoded == decoded


def test_rows_drawn_by_their_own_seeds_are_each_computed(case):
    texts = [answer["text"] for answer in case.ask(*[CHAT] * 6)]
    assert len(set(texts)) > 1


def test_reuse_can_be_switched_off():
    case = Case(reuse=False)
    answers = case.ask(*[CHAT | {"temperature": 0}] * 3)
    assert not any(answer["reused"] for answer in answers)
    assert len({answer["text"] for answer in answers}) == 1
    case.responder.close()


def test_a_refused_row_is_refused_again_and_takes_nobody_along(case):
    long = {"prompt": "x" * 600, "temperature": 0}
    short = {"prompt": "x", "temperature": 0, "max_tokens": 2}
    codes = [
        (answer.get("error") or {}).get("code")
        for answer in case.ask(long, short, long, endpoint="/v1/completions")
    ]
    assert codes == ["context_length_exceeded", None, "context_length_exceeded"]


def test_more_tokens_than_the_models_context_has_are_refused_and_more_than_the_rows_are_cut():
    case = Case(limit=1000)
    within, beyond = case.ask(CHAT | {"max_tokens": 1000, "seed": 1}, CHAT | {"max_tokens": 1001})
    assert within["status_code"] == 200
    assert (beyond["error"]["code"], beyond["error"]["param"]) == ("invalid_request", "max_tokens")
    assert "from 1 to 1000" in beyond["error"]["message"]
    case.responder.close()


def test_minus_one_is_as_many_tokens_as_the_context_has_room_for(case):
    asked = {"ignore_eos": True, "temperature": 0}
    unlimited, small = case.ask(CHAT | asked | {"max_tokens": -1}, CHAT | asked | {"max_tokens": 2})
    assert unlimited["finish_reason"] == small["finish_reason"] == "length"
    assert unlimited["usage"]["total_tokens"] == 512
    assert small["usage"]["completion_tokens"] == 2


def test_the_default_of_max_tokens_may_be_more_than_a_context_holds():
    case = Case(limit=100)
    (answer,) = case.ask({"prompt": "x"}, endpoint="/v1/completions")
    assert answer["status_code"] == 200
    case.responder.close()


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 12), temperature=st.sampled_from([0, 1.0]))
def test_n_choices_cost_one_prompt(n, temperature):
    case = Case()
    (answer,) = case.ask(CHAT | {"n": n, "temperature": temperature, "seed": 7})
    (single,) = case.ask(CHAT | {"temperature": temperature, "seed": 7})
    assert [choice["index"] for choice in answer["choices"]] == list(range(n))
    assert answer["choices"][0]["message"] == single["choices"][0]["message"]
    assert answer["usage"]["prompt_tokens"] == single["usage"]["prompt_tokens"]
    if temperature == 0:
        assert answer["usage"]["completion_tokens"] == n * single["usage"]["completion_tokens"]
    case.responder.close()


@settings(deadline=None, max_examples=25)
@given(labels=st.lists(st.text("abcd", min_size=1, max_size=4), min_size=2, max_size=5, unique=True))
def test_a_label_comes_with_the_probability_of_each(labels):
    case = Case()
    asks = {"guided_choice": labels, "label_logprobs": True, "temperature": 0, "repeat_penalty": 1.0}
    (answer,) = case.ask(CHAT | asks)
    found = answer["label_logprobs"]
    assert answer["text"] in labels
    assert answer["complete"] is True
    assert [entry["label"] for entry in found] == labels
    assert sum(math.exp(entry["logprob"]) for entry in found) == pytest.approx(1)
    assert answer["usage"]["completion_tokens"] <= max(map(len, labels)) + 1
    case.responder.close()


def test_an_answer_cut_off_within_its_schema_is_not_passed_off_as_whole(case):
    schema = {"type": "object", "properties": {"a": {"type": "string", "minLength": 40}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    (answer,) = case.ask(CHAT | {"response_format": form})
    assert (answer["finish_reason"], answer["complete"]) == ("length", False)


def test_log_probabilities_come_with_their_texts(case):
    (answer,) = case.ask(
        {"prompt": "ab", "max_tokens": 3, "logprobs": 2, "echo": True}, endpoint="/v1/completions"
    )
    logprobs = answer["choices"][0]["logprobs"]
    assert answer["text"].startswith("ab")
    assert logprobs["token_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])


def test_what_another_worker_has_answered_is_not_computed_again():
    board = AnswerBoard()
    greedy, other = CHAT | {"temperature": 0}, CHAT | {"temperature": 0, "max_tokens": 3}
    first, second = Case(elsewhere=board), Case(elsewhere=board)
    (answer,) = first.ask(greedy)
    again, once_more, new = second.ask(greedy, greedy, other)
    assert answer["choices"] == again["choices"] == once_more["choices"]
    assert [found["reused"] for found in (answer, again, once_more, new)] == [False, True, True, False]
    decoded = second.decoded
    assert second.ask(greedy)[0]["reused"]
    assert second.decoded == decoded
    for case in (first, second):
        case.responder.close()


def test_rows_are_answered_without_the_others():
    class Gone:
        def look(self, keys: Any) -> dict[bytes, Any]:
            return {}

        def note(self, answers: Any) -> None: ...

    case = Case(elsewhere=Gone())
    assert [answer["reused"] for answer in case.ask(*[CHAT | {"temperature": 0}] * 2)] == [False, True]
    case.responder.close()


def test_rows_are_told_as_soon_as_they_are_answered_whatever_the_others_do():
    case, seen = Case(), []
    bodies = [CHAT | {"max_tokens": n, "seed": n, "ignore_eos": True} for n in (2, 30)]
    bodies += [CHAT | {"top_p": 0.5, "model": "unknown"}]
    rows = [Row(f"r{at}", parse_request("/v1/chat/completions", body)) for at, body in enumerate(bodies)]
    case.model.fails = lambda batch: seen.append(case.responder.answered(rows))
    answers = case.responder.respond(rows, 2)
    # In order: what is refused, what is short, and what is long.
    assert sorted(seen[0]) == [2]
    assert any(sorted(found) == [0, 2] for found in seen)
    for found in seen:
        for place, record in found.items():
            assert {**record, "created": 0} == {**answers[place], "created": 0}
    assert case.responder.answered(rows) == {}
    case.responder.close()
