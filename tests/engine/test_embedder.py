"""Embedding many inputs: packing changes the speed, never a vector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from pipeline.engine.embedder import Embedder, fit, normalised, pack, shorten
from pipeline.engine.fakes.embedding import FakeEmbeddingModel
from pipeline.engine.fakes.fake import EOS, FakeVocabulary
from pipeline.errors import RowError, WorkerError

inputs = st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=64), max_size=30)
vectors = st_numpy.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.just(8)), elements=st.floats(-1e3, 1e3, width=32)
)


def alone(tokens: list[int]) -> np.ndarray:
    return normalised(FakeEmbeddingModel().embed([tokens]))[0]


@given(inputs, st.integers(1, 80), st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_vector_does_not_depend_on_packing_or_order(inputs, batch_tokens, max_sequences, random) -> None:
    embedder = Embedder(FakeEmbeddingModel(batch_tokens=batch_tokens, max_sequences=max_sequences))
    order = list(range(len(inputs)))
    random.shuffle(order)
    result = embedder.embed([inputs[index] for index in order])
    assert result.shape == (len(inputs), 8)
    for index, vector in zip(order, result, strict=True):
        np.testing.assert_array_equal(vector, alone(inputs[index]))


@given(
    st.lists(st.integers(1, 64), max_size=60),
    st.integers(1, 128),
    st.integers(1, 9),
    st.none() | st.integers(1, 128),
)
def test_calls_hold_every_input_once_within_the_limits(lengths, tokens, count, short) -> None:
    calls = pack(lengths, tokens, count, short)
    assert sorted(index for call in calls for index in call) == list(range(len(lengths)))
    for call in calls:
        assert 0 < len(call) <= count
        assert len(call) == 1 or sum(lengths[index] for index in call) <= tokens


@given(st.lists(st.integers(1, 64), min_size=1, max_size=60))
def test_inputs_of_like_length_share_a_call(lengths) -> None:
    order = [lengths[index] for call in pack(lengths, 128, 8) for index in call]
    assert order == sorted(lengths, reverse=True)


def test_equal_inputs_fill_a_call_to_the_brim() -> None:
    assert [len(call) for call in pack([16] * 10, 64, 64)] == [4, 4, 2]


def test_short_inputs_make_short_calls_and_long_ones_share_theirs() -> None:
    assert [len(call) for call in pack([16] * 10, 64, 64, 32)] == [2] * 5
    assert [len(call) for call in pack([32] * 4, 64, 64, 32)] == [2, 2]
    assert [len(call) for call in pack([60, 60, 4], 64, 64, 32)] == [1, 2]


@given(inputs)
def test_vectors_have_length_one(inputs) -> None:
    for vector in Embedder(FakeEmbeddingModel()).embed(inputs):
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


@given(vectors, st.integers(1, 8))
def test_shortened_vectors_keep_their_direction_and_have_length_one_or_zero(vectors, dimensions) -> None:
    short = shorten(normalised(vectors), dimensions)
    assert short.shape == (len(vectors), dimensions)
    for whole, cut in zip(vectors[:, :dimensions], short, strict=True):
        norm = np.linalg.norm(cut)
        assert norm == pytest.approx(1, abs=1e-5) or not cut.any()
        np.testing.assert_allclose(cut * np.linalg.norm(whole), whole * norm, atol=1e-2)


def test_no_dimensions_means_all() -> None:
    whole = normalised(np.ones((2, 8), np.float32))
    assert shorten(whole, None) is whole


@pytest.mark.parametrize("dimensions", [-1, 0, 9])
def test_dimensions_that_the_model_lacks_are_a_row_error(dimensions: int) -> None:
    with pytest.raises(RowError, match="1 to 8 are allowed") as caught:
        shorten(np.ones((1, 8), np.float32), dimensions)
    assert (caught.value.code, caught.value.param) == ("invalid_request", "dimensions")


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(2, 50), st.booleans())
def test_fit_keeps_the_head_and_a_closing_special_token(tokens, limit, closes) -> None:
    tokens = [*tokens, EOS] if closes else tokens
    result = fit(tokens, limit, True, FakeVocabulary())
    assert not closes or result == fit(tokens, limit, True)
    assert len(result) == min(limit, len(tokens))
    assert result[:-1] == tokens[: len(result) - 1]
    assert result[-1] == (EOS if closes else tokens[len(result) - 1])


def test_too_long_an_input_is_an_error_unless_the_job_says_truncate() -> None:
    with pytest.raises(RowError, match=r"65 tokens.*at most 64.*request\.truncate") as caught:
        fit([1] * 65, 64, False, FakeVocabulary())
    assert caught.value.code == "context_length_exceeded"
    assert fit([1] * 64, 64, False, FakeVocabulary()) == [1] * 64


def test_an_input_without_tokens_is_a_row_error() -> None:
    with pytest.raises(RowError, match="no tokens"):
        fit([], 64, True, FakeVocabulary())


@pytest.mark.parametrize("tokens", [[], [1] * 65])
def test_an_input_that_was_not_fitted_is_a_bug_of_the_caller(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="1 to 64 tokens"):
        Embedder(FakeEmbeddingModel()).embed([tokens])


def test_a_broken_model_is_the_workers_failure() -> None:
    with pytest.raises(WorkerError):
        Embedder(FakeEmbeddingModel(fail_at_call=0)).embed([[1]])


def test_numbers_that_are_not_finite_are_never_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeEmbeddingModel()
    monkeypatch.setattr(model, "embed", lambda inputs: np.full((len(inputs), 8), np.nan, np.float32))
    with pytest.raises(WorkerError, match="not finite"):
        Embedder(model).embed([[1]])
