"""Plans that took a pass over their files, kept in the output so that a resume doesn't read them again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.files.storage import Storage
from pipeline.input.shards import Shard, ShardPlan
from pipeline.output.records import PLANS

_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "path": pa.string(),
        "size": pa.int64(),
        "stamp": pa.string(),
        "rows": pa.int64(),
        "digest": pa.string(),
        "columns": pa.list_(pa.string()),
        "marks": pa.list_(pa.list_(pa.int64(), 2)),
    }
)


def keep_plans(output: Storage, plans: Iterable[ShardPlan]) -> None:
    """Keeps those that took a pass. A file without a stamp may change unseen: its plan isn't kept."""
    read = (plan for plan in plans if not plan.recorded)
    rows = [_row(plan) for plan in read if plan.shard.is_text and plan.shard.stamp]
    if not rows:
        return
    table = pa.Table.from_pylist(rows, _SCHEMA)

    def write(file: BinaryIO) -> None:
        with pa.ipc.new_stream(file, _SCHEMA) as stream:
            stream.write_table(table)

    output.overwrite(PLANS, write)


def kept_plans(output: Storage, shards: Iterable[Shard]) -> dict[Shard, ShardPlan]:
    """What was kept of these shards, as far as they haven't changed; nothing where that can't be read."""
    wanted = {shard for shard in shards if shard.is_text and shard.stamp}
    if not wanted:
        return {}
    try:
        with pa.ipc.open_stream(output.read_bytes(PLANS)) as stream:
            plans = [_plan(row) for row in stream.read_all().cast(_SCHEMA).to_pylist()]
    except (FileNotFoundError, pa.ArrowException, ValueError):
        return {}
    return {plan.shard: plan for plan in plans if plan.shard in wanted}


def _row(plan: ShardPlan) -> dict[str, Any]:
    about = {"rows": plan.rows, "digest": plan.digest, "columns": plan.columns, "marks": plan.marks}
    return asdict(plan.shard) | about


def _plan(row: dict[str, Any]) -> ShardPlan:
    shard = Shard(row["name"], row["path"], row["size"], row["stamp"])
    marks = tuple((number, byte) for number, byte in row["marks"])
    return ShardPlan(shard, row["rows"], row["digest"], tuple(row["columns"]), marks)
