"""An exported file is what OpenAI's Batch API would have given: one sound line for each row, in order."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.engine.sequence import Generation
from pipeline.errors import ConfigError, OutputError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk
from pipeline.output.export import Exported, export
from pipeline.output.manifest import Manifest
from pipeline.output.records import response_name
from tests.given_job import FINE, OUTSIDE, Job, Outcome, outcomes

BODIES = {"chat.completion": ChatCompletion, "text_completion": Completion, "list": CreateEmbeddingResponse}


def exported(job: Job, **options: Any) -> bytes:
    target = f"{job.url}-export/results.jsonl"
    export(job.url, target, **options)
    return read(target)


def read(url: str) -> bytes:
    folder, name = Storage.around(url)
    return folder.read_bytes(name)


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().splitlines()]


def ids_of(data: bytes) -> list[str]:
    return [line["custom_id"] for line in lines_of(data)]


def check(line: dict[str, Any], outcome: Outcome) -> None:
    """A line against what became of its row."""
    assert line.keys() == {"id", "custom_id", "response", "error"}
    assert line["id"].startswith("batch_req_")
    kind, what = outcome
    if kind == "error" and what in OUTSIDE:
        assert (line["response"], line["error"]) == (None, {"code": what, "message": "it says why"})
        return
    assert line["error"] is None
    assert line["response"].keys() == {"status_code", "request_id", "body"}
    status, body = line["response"]["status_code"], line["response"]["body"]
    if kind == "error":
        assert 400 <= status <= 500
        assert ErrorObject.model_validate(body["error"], strict=True).code == what
    else:
        assert status == 200
        BODIES[body["object"]].model_validate(body, strict=True)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a.parquet", "b/c.parquet", "b.jsonl"]), st.lists(outcomes, max_size=4))
)
def test_each_row_has_its_line_in_the_inputs_order(shards: dict[str, list[Outcome]]) -> None:
    job = Job(shards).finish()
    data = exported(job)
    asked = [outcome for name in sorted(shards) for outcome in shards[name]]
    assert ids_of(data) == job.names
    for line, outcome in zip(lines_of(data), asked, strict=True):
        check(line, outcome)
    assert len({line["id"] for line in lines_of(data)}) == len(asked)
    assert exported(job) == data


@settings(max_examples=30, deadline=None)
@given(st.lists(outcomes, max_size=6))
def test_failed_rows_may_have_a_file_of_their_own(rows: list[Outcome]) -> None:
    job = Job({"a.parquet": rows}).finish()
    whole = exported(job)
    results = exported(job, errors=f"{job.url}-export/errors.jsonl")
    errors = read(f"{job.url}-export/errors.jsonl")
    failed = {f"a.parquet:{n}" for n, (kind, _) in enumerate(rows) if kind == "error"}
    assert set(ids_of(errors)) == failed
    assert set(ids_of(results)) == set(job.names) - failed
    lines = whole.splitlines(keepends=True)
    assert [line for line in lines if line in results] == results.splitlines(keepends=True)
    assert sorted(lines) == sorted((results + errors).splitlines(keepends=True))


@pytest.mark.parametrize("vectors", [1, 3])
def test_embeddings_are_embedding_responses(vectors: int) -> None:
    found = np.eye(vectors, 4) / 3
    job = Job({"a.parquet": [("embedding", found), ("error", "invalid_request")]}, "embed").finish()
    line, other = lines_of(exported(job))
    check(other, ("error", "invalid_request"))
    body = CreateEmbeddingResponse.model_validate(line["response"]["body"], strict=True)
    assert np.array_equal(np.float32([item.embedding for item in body.data]), np.float32(found))


def test_many_rows_and_row_groups_keep_their_order() -> None:
    job = Job({"a.parquet": [FINE] * 700})
    for start in range(0, 700, 100):
        job.commit_chunk(Chunk("a.parquet", start, start + 100))
    job.manifest.commit_shard(job.plans["a.parquet"])
    job.manifest.finish(list(job.plans.values()))
    assert ids_of(exported(job)) == job.names


def test_an_unfinished_job_is_refused_unless_a_part_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.answer.answers.time.time", lambda: 1.0)
    job = Job({"a.parquet": [FINE] * 5, "b.parquet": [FINE] * 9, "c.parquet": [FINE]}).commit("a.parquet")
    for start in (4, 0):
        job.commit_chunk(Chunk("b.parquet", start, start + 3))
    with pytest.raises(OutputError, match=r"isn't finished.*--partial"):
        exported(job)
    numbers = {"a": range(5), "b": (0, 1, 2, 4, 5, 6)}
    data = exported(job, partial=True)
    assert ids_of(data) == [f"{name}.parquet:{n}" for name, found in numbers.items() for n in found]
    whole = exported(job.finish())
    assert set(data.splitlines()) < set(whole.splitlines())


def test_a_shard_that_is_committed_meanwhile_is_exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job({"a.parquet": [FINE] * 9})
    for start in (0, 3, 6):
        job.commit_chunk(Chunk("a.parquet", start, start + 3))
    table = Manifest.table

    def reading(manifest: Manifest, name: str) -> pa.Table:
        if name == job.manifest.chunk_name(Chunk("a.parquet", 3, 6)):
            monkeypatch.undo()
            job.manifest.commit_shard(job.plans["a.parquet"])
        return table(manifest, name)

    monkeypatch.setattr(Manifest, "table", reading)
    assert ids_of(exported(job, partial=True)) == job.names


def test_an_absent_or_foreign_answer_ends_the_export_and_nothing_is_written() -> None:
    job = Job({"a.parquet": [FINE], "b.parquet": [FINE]}).finish()
    target = f"{job.url}-export/results.jsonl"
    data = job.manifest.output.read_bytes(response_name("a.parquet"))
    job.manifest.output.replace(response_name("b.parquet"), data)
    with pytest.raises(OutputError, match=r"responses/b.parquet: doesn't hold this job's answers"):
        export(job.url, target)
    job.manifest.output.remove(response_name("b.parquet"))
    with pytest.raises(OutputError, match=r"responses/b.parquet is absent"):
        export(job.url, target)
    with pytest.raises(FileNotFoundError):
        read(target)


def test_where_there_is_no_job_there_is_nothing_to_export() -> None:
    with pytest.raises(OutputError, match="no job has begun"):
        export(f"memory://{uuid.uuid4()}", "-", partial=True)


def test_a_local_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    job = Job({"a.parquet": [FINE, ("error", "worker_crashed")]}).finish()
    (tmp_path / "results.jsonl").write_text("old")
    done = export(job.url, str(tmp_path / "results.jsonl"))
    assert done == Exported(lines=2, failed=1, rows=2)
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
    assert (tmp_path / "results.jsonl").read_bytes() == exported(job)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r", "\n"])
def test_no_sign_in_a_text_ends_a_line(mark: str) -> None:
    text = f"one{mark}two"
    job = Job({"a.parquet": [("chat", [Generation(text, (1,), "stop", 1, 0)])] * 2}).finish()
    lines = lines_of(exported(job))
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines] == [text, text]


@pytest.mark.parametrize("target", ["", "folder/", "memory://x/"])
def test_a_target_that_is_no_file_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="FILE"):
        export("memory://anything", target)
    with pytest.raises(ConfigError, match="--errors"):
        export("memory://anything", "-", target)


def test_both_files_must_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another file"):
        export("memory://anything", "-", "-")
    with pytest.raises(ConfigError, match="another file"):
        export("memory://anything", f"{tmp_path}/a.jsonl", f"{tmp_path}/./a.jsonl")
    with pytest.raises(ConfigError, match="expected a file"):
        export("memory://anything", str(tmp_path))


def test_the_record_of_all_shards_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job({f"{n}.parquet": [FINE] * 3 for n in range(4)}).finish()
    hashed: list[Any] = []
    original = json.dumps
    monkeypatch.setattr(
        "pipeline.output.fingerprint.json.dumps",
        lambda value, **options: (
            (hashed.append(value) if "model" in value else None) or original(value, **options)
        ),
    )
    assert len(lines_of(exported(job))) == 12
    assert len(hashed) == 1


def test_an_answer_that_cannot_be_read_is_an_output_error() -> None:
    job = Job({"a.parquet": [FINE]}).finish()
    job.manifest.output.replace(response_name("a.parquet"), b"PAR1")
    with pytest.raises(OutputError, match=r"a\.parquet: .*; remove it"):
        exported(job)


def test_the_command_line_says_what_it_wrote(tmp_path: Path) -> None:
    job = Job({"a.parquet": [FINE, ("error", "model_not_found")]}, url=str(tmp_path / "out")).finish()
    results, errors = str(tmp_path / "results.jsonl"), str(tmp_path / "errors.jsonl")
    done = CliRunner().invoke(app, ["export", job.url, results, "--errors", errors])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{results}: 2 of 2 rows, 1 with an error, those in {errors}\n"
    piped = CliRunner().invoke(app, ["export", job.url, "-"])
    assert ids_of(piped.stdout_bytes) == job.names
    assert piped.stderr == "-: 2 of 2 rows, 1 with an error\n"


def test_the_command_line_ends_with_the_contracts_statuses(tmp_path: Path) -> None:
    job = Job({"a.parquet": [FINE]}, url=str(tmp_path / "out"))
    refused = CliRunner().invoke(app, ["export", job.url, "-"])
    assert (refused.exit_code, refused.stdout_bytes) == (1, b"")
    assert "isn't finished" in refused.stderr
    assert CliRunner().invoke(app, ["export", job.url, "-", "--errors", "-"]).exit_code == 2
    assert CliRunner().invoke(app, ["export", job.url]).exit_code == 2
