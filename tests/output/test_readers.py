"""An output can be read by those who use it: each tool finds what was written.

After datasets#5612: one map, in a column that nobody had asked for, and load_dataset refused every output.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from pipeline.answer.answer import Embedded, Usage
from pipeline.answer.answer_columns import Kind
from pipeline.answer.answers import Answers
from pipeline.answer.parsed import Expected
from pipeline.engine.sampling.deciding import Decision
from pipeline.engine.sampling.logprobs import TokenLogprob
from pipeline.engine.sequence import Generation
from pipeline.output.verify import verify
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.answer.test_chat_answers import HERMES, call, chat
from tests.generated import said
from tests.given_job import Job

LISTED = (
    TokenLogprob(104, -0.5, ((104, -0.5), (105, -1.5))),
    TokenLogprob(105, -math.inf, ((97, -0.1),)),
)
SPOKEN = said("hi", logprobs=LISTED)
Make = Callable[[Answers, str], dict[str, Any]]


def answered(row: Row, *choices: Generation) -> Make:
    def make(answers: Answers, name: str) -> dict[str, Any]:
        answer = answers.chat if hasattr(row.request, "messages") else answers.completion
        return answer(Row(name, row.request), choices or (SPOKEN,), 1)

    return make


def completion(**fields: Any) -> Row:
    return Row("", parse_request("/v1/completions", {"prompt": "Hi"} | fields))


def embedded(asked: Any, size: int = 4) -> Make:
    request = parse_request("/v1/embeddings", {"input": asked})
    vectors = np.eye(len(request.inputs), size, dtype=np.float32) / 3
    return lambda answers, name: answers.embedding(Row(name, request), Embedded(vectors, Usage(3)), 1)


ERROR = ("error", "invalid_request")
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
GOOD = Decision(None, ("good", "bad"), (-0.1, -math.inf), 0)
ITEMS = {"type": "array", "items": {"type": "object", "properties": {"tag": {"enum": ["a", "b"]}}}}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["good", "bad"]}, "score": {"type": "number"}, "items": ITEMS},
    "required": ["label", "score", "items"],
    "additionalProperties": False,
}
TYPED = chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})
LABELS = chat(guided_choice=["good", "bad"], label_logprobs=True)
JOBS: dict[str, tuple[Kind, dict[str, list[Any]]]] = {
    "chat": ("generate", {"a": [answered(chat(), said("hi")), ERROR], "b/c": [answered(chat(), said(""))]}),
    "chat with logprobs": (
        "generate",
        {"a": [answered(chat(logprobs=True, top_logprobs=2)), answered(chat(n=2), SPOKEN, SPOKEN)]},
    ),
    "chat with calls": (
        "generate",
        {
            "a": [
                answered(chat(tools=[WEATHER]), said(call("Čáslav"))),
                answered(chat(), said("<think>a</think>b")),
            ]
        },
    ),
    "completion": ("generate", {"a": [answered(completion(), said("hi"))], "b": [ERROR]}),
    "completion with logprobs": (
        "generate",
        {
            "a": [answered(completion(logprobs=2)), answered(completion(), said("hi")), ERROR],
            "b": [answered(completion(logprobs=0)), answered(completion(logprobs=2, echo=True))],
        },
    ),
    "labels": ("generate", {"a": [answered(LABELS, said("good", decisions=(GOOD,))), ERROR]}),
    "typed answers": (
        "generate",
        {
            "a": [answered(TYPED, said('{"label": "bad", "score": 0.5, "items": [{"tag": "a"}]}')), ERROR],
            "b": [ERROR, answered(TYPED, said('{"label": "good", "score": 1, "items": []}'))],
        },
    ),
    "embedding": ("embed", {"a": [embedded("one"), ERROR, embedded("two")], "b": [embedded("three")]}),
    "embedding of lists": ("embed", {"a": [embedded(["one", "two"]), embedded([[1], [2], [3]])]}),
    "embedding of several lengths": ("embed", {"a": [embedded("one", 2), embedded(["two"], 4), ERROR]}),
    "embedding as float16": ("embed", {"a": [embedded("one"), ERROR], "b": [embedded(["two"])]}),
    "embedding as int8": ("embed", {"a": [embedded("one"), ERROR], "b": [embedded(["two"])]}),
    "embedding as binary": ("embed", {"a": [embedded("one"), ERROR], "b": [embedded(["two"])]}),
    "errors": ("generate", {"a": [ERROR], "b": [ERROR, ERROR]}),
    "a shard without rows": ("generate", {"a": [answered(chat())], "b": [], "c": [ERROR]}),
    "errors of embeddings": ("embed", {"a": [ERROR]}),
}


def made(folder: Path, name: str) -> list[Path]:
    """The response files of a finished job."""
    kind, shards = JOBS[name]

    class Given(Job):
        def record(self, name: str, kind: str, what: Any) -> dict[str, Any]:
            made: dict[str, Any] = (
                what(self.answers, name) if kind == "made" else super().record(name, kind, what)
            )
            return made

    outcomes = {
        f"{shard}.parquet": [("made", row) if callable(row) else row for row in rows]
        for shard, rows in shards.items()
    }
    parsed = Expected.of(TYPED.request) if name == "typed answers" else None  # type: ignore[arg-type]
    form = name.removeprefix("embedding as ") if name.startswith("embedding as ") else "float32"
    job = Given(outcomes, kind, str(folder), HERMES, parsed, form)  # type: ignore[arg-type]
    job.finish()
    assert not verify(str(folder)).problems
    return sorted((folder / "responses").rglob("*.parquet"))


def by_pyarrow(folder: Path, _: Path) -> Any:
    return pq.read_table(folder).to_pylist()


def by_pandas(folder: Path, _: Path) -> Any:
    return pd.read_parquet(folder).to_dict("records")


def by_polars(folder: Path, _: Path) -> Any:
    return pl.read_parquet(folder).to_dicts()


def by_duckdb(folder: Path, _: Path) -> Any:
    found = duckdb.read_parquet(f"{folder}/**/*.parquet")
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def by_datasets(folder: Path, cache: Path) -> Any:
    from datasets import load_dataset

    files = f"{folder}/**/*.parquet"
    return load_dataset("parquet", split="train", data_files=files, cache_dir=str(cache)).to_list()


READERS = (by_pyarrow, by_pandas, by_polars, by_duckdb, by_datasets)


def plain(value: Any) -> Any:
    """What all tools agree on: pandas has arrays for lists, and NaN for null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", JOBS)
def test_every_tool_reads_an_output_and_finds_the_same(
    tmp_path: Path, name: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = made(tmp_path / "out", name)
    written = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    assert plain(read(tmp_path / "out/responses", tmp_path / "cache")) == plain(written)


def test_a_completions_likeliest_tokens_are_structs(tmp_path: Path) -> None:
    (first, *_), _ = (pq.read_table(f).to_pylist() for f in made(tmp_path, "completion with logprobs"))
    assert first["choices"][0]["logprobs"]["top_logprobs"] == [
        [{"token": "h", "logprob": -0.5, "bytes": [104]}, {"token": "i", "logprob": -1.5, "bytes": [105]}],
        [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "i", "logprob": -9999.0, "bytes": [105]}],
    ]
    query = "select list_max([t.logprob for t in choices[1].logprobs.top_logprobs[2]]) from '{}'"
    assert duckdb.sql(query.format(tmp_path / "responses/a.parquet")).fetchall()[0] == (-0.1,)
