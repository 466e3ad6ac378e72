"""What a worker makes of a chunk: every row answered once, errors that may pass tried again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError, WorkerError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.job.worker import Identity, Worker
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.pulse import Pulse
from pipeline.request.rows import Row

ANSWERS = Answers("m", "0", pa.schema([]))


class Moody:
    """Answers a prompt "CODE N" with the error CODE the first N times that it is asked."""

    kind = "generate"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        self.asked.append([row.custom_id for row in rows])
        return [self.answer(row, attempts) for row in rows]

    def answer(self, row: Row, attempts: int) -> dict[str, Any]:
        code, times = row.request.prompt.split()  # type: ignore[union-attr]
        if sum(row.custom_id in names for names in self.asked) <= int(times):
            return ANSWERS.error(row.custom_id, RowError(code, "not now"), attempts)
        return ANSWERS.completion(row, [Generation("well", (1,), "stop", 1, 0)], attempts)

    def pulse(self) -> Pulse:
        return Pulse()

    def close(self) -> None: ...


class Case:
    def __init__(
        self,
        folder: Path,
        prompts: list[str],
        responder: Any,
        keep: dict[str, str] | None = None,
        **kept: pa.Array,
    ) -> None:
        names = [f"r{number}" for number in range(len(prompts))]
        pq.write_table(pa.table({"custom_id": names, "prompt": prompts, **kept}), folder / "s.parquet")
        output = {"path": str(folder / "out"), "keep": keep or list(kept)}
        paths = {"input": {"path": str(folder / "s.parquet")}, "output": output}
        job = JobConfig.model_validate({"model": {"path": "m"}, **paths})
        self.plan: ShardPlan = plan_shard(list_shards(job.input.path)[0])
        manifest = Manifest(Storage.at(job.output.path), Fingerprint.of(job, "0" * 64, [self.plan]))
        manifest.begin()
        self.file = folder / "out/responses/s.parquet"
        self.worker = Worker(job, Identity("m", "0"), manifest, responder)

    def process(self, attempt: int = 1, condemned: bool = False) -> list[dict[str, Any]]:
        self.worker.process(self.plan, Chunk("s.parquet", 0, self.plan.rows), attempt, condemned)
        rows: list[dict[str, Any]] = pq.read_table(self.file).to_pylist()
        return rows


def test_errors_that_may_pass_are_tried_again_and_alone(tmp_path: Path) -> None:
    moody = Moody()
    rows = Case(tmp_path, ["server_error 0", "server_error 1", "deadline_exceeded 2"], moody).process()
    assert [row["text"] for row in rows] == ["well"] * 3
    assert [row["attempts"] for row in rows] == [1, 2, 3]
    assert moody.asked == [["r0", "r1", "r2"], ["r1", "r2"], ["r2"]]


def test_a_row_is_tried_no_more_often_than_the_job_allows(tmp_path: Path) -> None:
    (row,) = Case(tmp_path, ["server_error 9"], Moody()).process()
    assert (row["error"]["code"], row["attempts"]) == ("server_error", 3)


def test_tries_of_workers_that_died_count(tmp_path: Path) -> None:
    (row,) = Case(tmp_path, ["server_error 9"], Moody()).process(attempt=3)
    assert row["attempts"] == 3


def test_an_answer_that_says_the_request_is_wrong_is_final(tmp_path: Path) -> None:
    moody = Moody()
    (row,) = Case(tmp_path, ["invalid_request 1"], moody).process()
    assert (row["error"]["code"], row["attempts"], len(moody.asked)) == ("invalid_request", 1, 1)


def test_a_condemned_row_is_answered_without_being_tried(tmp_path: Path) -> None:
    moody = Moody()
    (row,) = Case(tmp_path, ["server_error 0"], moody).process(attempt=3, condemned=True)
    assert (row["error"]["code"], row["attempts"], moody.asked) == ("worker_crashed", 3, [])


@pytest.mark.parametrize("kept", [pa.array([[0.1, 0.2]]), pa.array(["a"])])
def test_a_column_that_is_carried_along_may_be_called_embedding(tmp_path: Path, kept: pa.Array) -> None:
    case = Case(tmp_path, ["server_error 0"], Moody(), embedding=kept)
    case.process()
    assert pq.read_table(case.file).column("embedding").combine_chunks().equals(kept)


class Forgetful(Moody):
    def respond(self, rows: Sequence[Row], attempts: int) -> list[dict[str, Any]]:
        return super().respond(rows, attempts)[1:]


def test_a_chunk_with_a_missing_answer_is_never_committed(tmp_path: Path) -> None:
    case = Case(tmp_path, ["server_error 0", "server_error 0"], Forgetful())
    with pytest.raises(WorkerError, match="2 rows went in, and 1 other answers came out"):
        case.process()
    assert not case.file.exists()
