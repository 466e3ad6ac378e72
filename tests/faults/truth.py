"""What must be true of every output, whatever happened on the way."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.output.verify import verify
from tests.faults.arithmetic import Sum
from tests.faults.case import Case
from tests.faults.watcher import Watcher

USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens")
CHANGING = ["created", "attempts"]
"""The columns that tell how and when a row was answered, not what."""


def assert_whole(case: Case, watcher: Watcher, crashed: frozenset[str] = frozenset()) -> None:
    """Every row is there once, in its place, with its right answer; all totals agree; nothing is left over.

    crashed: the rows that must bear the error worker_crashed; no other row bears any."""
    assert verify(str(case.output), deep=True).problems == []
    assert watcher.problems == []
    assert watcher.seen.keys() == case.rows.keys()
    assert sorted(path.name for path in case.output.iterdir()) == ["_SUCCESS", "responses", "usage.parquet"]
    tables = case.finished()
    for name, answers in tables.items():
        _assert_right(pq.read_table(case.input / f"{name}.parquet"), answers, crashed)
    _assert_totals(case.output, {f"{name}.parquet": count(table) for name, table in tables.items()})


def _assert_right(asked: pa.Table, answers: pa.Table, crashed: frozenset[str]) -> None:
    assert answers["custom_id"].to_pylist() == asked["custom_id"].to_pylist()
    for row, prompt in zip(answers.to_pylist(), asked["prompt"].to_pylist(), strict=True):
        if row["custom_id"] in crashed:
            assert (row["status_code"], row["error"]["code"]) == (500, "worker_crashed"), row
        else:
            assert row["error"] is None and row["status_code"] == 200, row
            assert row["text"] == Sum.of(prompt).text == row["choices"][0]["text"]
            _assert_usage(row["usage"], Sum.of(prompt))


def _assert_usage(usage: dict[str, Any], task: Sum) -> None:
    assert usage["prompt_tokens"] == task.prompt_tokens
    assert usage["completion_tokens"] == task.completion_tokens
    assert usage["total_tokens"] == task.prompt_tokens + task.completion_tokens
    assert usage["prompt_tokens_details"]["cached_tokens"] == task.cached_tokens


def count(answers: pa.Table) -> Counter[str]:
    """What a shard's rows cost, counted without the pipeline's help."""
    usage = answers["usage"].combine_chunks()
    details = pc.struct_field(usage, "prompt_tokens_details")
    columns = {
        "prompt_tokens": pc.struct_field(usage, "prompt_tokens"),
        "completion_tokens": pc.struct_field(usage, "completion_tokens"),
        "total_tokens": pc.struct_field(usage, "total_tokens"),
        "cached_tokens": pc.struct_field(details, "cached_tokens"),
        "attempts": answers["attempts"],
        "failed": pc.cast(pc.is_valid(answers["error"]), pa.int64()),
    }
    sums = {name: pc.sum(column).as_py() or 0 for name, column in columns.items()}
    return Counter(sums, rows=answers.num_rows, succeeded=answers.num_rows - sums["failed"])


def _assert_totals(output: Path, counted: dict[str, Counter[str]]) -> None:
    usage = {row.pop("shard"): row for row in pq.read_table(output / "usage.parquet").to_pylist()}
    assert usage.keys() == counted.keys()
    for name, counts in counted.items():
        footer = json.loads(pq.read_metadata(output / "responses" / name).metadata[b"nightherd"])["tally"]
        assert {key: usage[name][key] for key in counts} == counts == {key: footer[key] for key in counts}
    totals = json.loads((output / "_SUCCESS").read_bytes())["totals"]
    whole = sum(counted.values(), Counter())
    assert {key: totals[key] for key in next(iter(counted.values()))} == {
        key: whole[key] for key in next(iter(counted.values()))
    }


def data(answers: pa.Table) -> bytes:
    """The answers' columns as bytes, less those that tell when they were given."""
    table = answers.drop_columns(CHANGING).combine_chunks().replace_schema_metadata(None)
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    return file.getvalue()
