"""One request to one answer, on the fake model: what a caller beside a job's chunks gets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import pytest

from pipeline.answer.openai_body import body_of
from pipeline.engine.embedder import Embedder
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.embedding import FakeEmbeddingModel
from pipeline.engine.fakes.fake import FakeModel
from pipeline.engine.runner import Runner
from pipeline.errors import RowError, WorkerError
from pipeline.request.schema import Request, parse_request
from pipeline.respond.about import About
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.respond.generative_service import GenerativeService

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"


def asks(endpoint: str, **fields: Any) -> Request:
    message = {"messages": [{"role": "user", "content": "hello"}]}
    default = {CHAT: message, COMPLETION: {"prompt": "hello"}, EMBEDDING: {"input": "hello"}}[endpoint]
    return parse_request(endpoint, default | fields)  # type: ignore[arg-type]


class Case:
    """A service on the fake model, that `pause` holds before its next call."""

    def __init__(self) -> None:
        self.model = FakeModel(max_sequences=9, context=512)
        self.model.fails = lambda batch: (self.gate.acquire(), self.gate.release())[1]
        self.gate = threading.Lock()
        self.engine = Engine(self.model, slots=4)
        self.service = GenerativeService(
            Runner(self.engine), self.model.vocabulary, About("m", "digest", "fp"), context=512
        )

    def text(self, **fields: Any) -> str | None:
        answer = self.service.ask(asks(CHAT, **fields), "r").result.result(10)
        return answer.choices[0].content  # type: ignore[union-attr]


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case()
    yield made
    made.service.close()


def test_a_request_becomes_an_answer_and_the_answer_openais_body(case):
    request = asks(CHAT, max_tokens=3, temperature=0, ignore_eos=True)
    answer = case.service.ask(request, "name").result.result(10)
    body = body_of(request, answer, id="chatcmpl-1", created=7, model="m", fingerprint="fp")
    assert (body["id"], body["object"], body["created"]) == ("chatcmpl-1", "chat.completion", 7)
    assert body["choices"][0]["message"]["content"] == answer.choices[0].content
    assert body["usage"]["completion_tokens"] == answer.usage.completion_tokens == 3


def test_equal_names_give_equal_draws_and_other_names_others(case):
    request = asks(CHAT, max_tokens=20, ignore_eos=True)
    texts = [case.service.ask(request, name).result.result(10).choices[0].content for name in "aab"]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (asks(EMBEDDING), "invalid_request"),
        (asks(CHAT, model="other"), "model_not_found"),
        (asks(COMPLETION, prompt="x" * 600), "context_length_exceeded"),
    ],
)
def test_what_cant_be_served_is_refused_before_anything_is_computed(case, request_, code):
    with pytest.raises(RowError) as refused:
        case.service.ask(request_, "r")
    assert refused.value.code == code
    assert case.model.calls == 0


def test_the_cells_of_what_nobody_wants_are_free_after_the_next_step(case):
    with case.gate:
        handles = [case.service.ask(asks(CHAT, max_tokens=400, ignore_eos=True, n=3), str(i)) for i in "ab"]
        while not case.engine.running:  # Rows run, wait, and lie in the inbox.
            time.sleep(0.001)
        for handle in handles:
            handle.cancel()
            handle.cancel()
    assert case.text(max_tokens=3) is not None
    assert (case.engine.running, case.engine.waiting) == (0, 0)
    for handle in handles:
        with pytest.raises(CancelledError):
            handle.result.result(10)


def test_one_request_outlives_the_cancel_of_its_equal(case):
    request = asks(CHAT, max_tokens=30, ignore_eos=True, temperature=0)
    with case.gate:
        first, second = (case.service.ask(request, name) for name in "ab")
        first.cancel()
    assert len(second.result.result(10).choices[0].content) == 30


def test_a_broken_engine_breaks_what_is_under_way_and_refuses_what_comes(case):
    with case.gate:
        handle = case.service.ask(asks(CHAT), "r")
        case.model.fails = lambda batch: 1 / 0
    with pytest.raises(WorkerError, match="division by zero"):
        case.service.ask(asks(CHAT, max_tokens=5), "s").result.result(10)
    with pytest.raises(WorkerError):
        handle.result.result(10)
        case.service.ask(asks(CHAT), "t")


def test_embeddings_that_come_while_a_call_is_made_share_the_next_one():
    model, gate = FakeEmbeddingModel(), threading.Lock()
    service = EmbeddingService(Embedder(model), truncate=False)
    with gate:
        service._thread.submit(lambda: gate.acquire() and gate.release())
        handles = [service.ask(asks(EMBEDDING, input=[text, "a"]), text) for text in "abc"]
        handles[2].cancel()
    first, second = (handle.result.result(10) for handle in handles[:2])
    assert (first.vectors[1] == second.vectors[1]).all()
    assert first.usage.total_tokens == second.usage.total_tokens
    assert list(map(len, model.calls)) == [2]
    service.close()
