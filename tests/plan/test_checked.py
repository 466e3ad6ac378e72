"""The rows of a job pass the checks of a worker before the night."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import JobConfig
from pipeline.errors import RowError
from pipeline.input.shards import list_shards, plan_shard
from pipeline.plan.checked import TASK_ROWS, Checked, RowCheck, tasks
from pipeline.request.schema import Request


def prepare(request: Request | RowError, name: str) -> int:
    if isinstance(request, RowError):
        raise request
    words = request.prompt.split()  # type: ignore[union-attr]
    if len(words) > 9:
        raise RowError("context_length_exceeded", f"prompt: {len(words)} tokens")
    return len(words)


def test_every_row_is_checked_once_and_what_is_refused_is_told_with_an_example(tmp_path: Path) -> None:
    rows = 2 * TASK_ROWS + 300
    prompts = ["one two three"] * rows
    prompts[1500] = "word " * 50
    tokens = [4] * rows
    tokens[7] = -3
    pq.write_table(pa.table({"prompt": prompts, "max_tokens": tokens}), tmp_path / "a.parquet")
    paths = {"input": {"path": str(tmp_path)}, "output": {"path": str(tmp_path / "out")}}
    job = JobConfig.model_validate({"model": {"path": "m"}, **paths})
    plans = [plan_shard(shard) for shard in list_shards(job.input.path)]
    check, todo = RowCheck(job, prepare=prepare), list(tasks(plans))
    found = sum(map(check, todo), Checked())
    assert len(todo) == 3
    assert (found.rows, found.refused_rows, found.prompt_tokens) == (rows, 2, 3 * (rows - 2))
    assert dict(found.refused.codes) == {"context_length_exceeded": 1, "invalid_request": 1}
    assert {reason.custom_id for reason in found.refused.reasons} == {"a.parquet:7", "a.parquet:1500"}
    assert Checked.from_dict(found.to_dict()) == found
