"""What rows get that ask for embeddings, on the fake model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answer.answers import Answers
from pipeline.engine.embedder import Embedder
from pipeline.engine.fakes.embedding import FakeEmbeddingModel
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from pipeline.respond.embedding_responder import EmbeddingResponder
from pipeline.respond.embedding_service import EmbeddingService

INPUTS = st.one_of(st.sampled_from("abc"), st.lists(st.sampled_from("abc"), min_size=1, max_size=3))


def respond(inputs: list[Any], **options: Any) -> tuple[list[dict[str, Any]], int]:
    """The answers, and how many inputs the model has embedded."""
    model = FakeEmbeddingModel()
    answers = Answers("m", "0", pa.schema([]), "embed")
    responder = EmbeddingResponder(EmbeddingService(Embedder(model), truncate=False, **options), answers)
    rows = [
        Row(f"r{at}", parse_request("/v1/embeddings", {"input": found})) for at, found in enumerate(inputs)
    ]
    records = responder.respond(rows, 1)
    responder.close()
    return records, sum(map(len, model.calls))


@given(st.lists(INPUTS, max_size=8))
def test_equal_inputs_are_embedded_once_and_each_row_gets_its_vectors(inputs):
    records, embedded = respond(inputs)
    plain, all_of_them = respond(inputs, reuse=False)
    texts = [text for found in inputs for text in found]
    assert embedded == len(set(texts))
    assert all_of_them == len(texts)
    for record, other in zip(records, plain, strict=True):
        assert np.array_equal(record["embedding"], other["embedding"])
        assert record["usage"] == other["usage"]


def test_a_refused_row_takes_nobody_along():
    records, embedded = respond(["x" * 100, "a"])
    assert [(record.get("error") or {}).get("code") for record in records] == [
        "context_length_exceeded",
        None,
    ]
    assert embedded == 1


def test_the_input_that_is_too_long_is_named():
    (record,), _ = respond([["a", "x" * 100]])
    assert (record["error"]["code"], record["error"]["param"]) == ("context_length_exceeded", "input[1]")
