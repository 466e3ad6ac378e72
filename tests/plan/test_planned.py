"""All shards are planned, from footers and by passes over JSON lines; what took a pass is not read again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import ClusterConfig
from pipeline.errors import ClusterLost, InputError
from pipeline.files.storage import Storage
from pipeline.input.shards import Shard, ShardPlan, list_shards, plan_shard
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.output.records import PLANS
from pipeline.plan import planned
from pipeline.plan.kept_plans import keep_plans, kept_plans
from pipeline.plan.planned import plan_all


def shards_in(folder: Path) -> list[Shard]:
    folder.mkdir(exist_ok=True)
    for n in range(40):
        table = pa.table({"custom_id": [f"r{i}" for i in range(n)], "prompt": ["Hi"] * n})
        pq.write_table(table, folder / f"{n:02}.parquet")
    for n in range(5):
        lines = [json.dumps({"custom_id": f"r{i}", "prompt": "Hi"}) for i in range(100 * n)]
        (folder / f"lines-{n}.jsonl").write_text("\n".join(lines))
    return list_shards(str(folder))


def plans_of(shards: list[Shard], output: Path, told: list[str] | None = None) -> list[ShardPlan]:
    tell = [].append if told is None else told.append
    known = kept_plans(Storage.at(str(output)), shards)
    return plan_all(shards, RayCluster(ClusterConfig()), known, tell)


def test_all_are_planned_and_lists_of_columns_are_shared(tmp_path: Path) -> None:
    shards = shards_in(tmp_path / "in")
    plans = plans_of(shards, tmp_path / "out")
    assert plans == [plan_shard(shard) for shard in shards]
    assert len({id(plan.columns) for plan in plans}) == 2


def test_it_is_told_how_far_planning_is_where_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, told = shards_in(tmp_path / "in"), list[str]()
    plans_of(shards, tmp_path / "out", told)
    monkeypatch.setattr(planned, "TOLD_AFTER", 0)
    monkeypatch.setattr(planned, "TOLD_EVERY", 0)
    assert not told
    plans_of(shards, tmp_path / "out", told)
    assert told[0] == "planning: 1 of 40 shards" and told[39] == "planning: 40 of 40 shards"
    assert told[-1] == "planning: 0.0 of 0.0 GB read"


@pytest.mark.parametrize("name", ["07.parquet", "lines-3.jsonl.gz"])
def test_a_shard_that_is_broken_is_named_before_any_work(tmp_path: Path, name: str) -> None:
    shards_in(tmp_path / "in")
    (tmp_path / "in" / name).write_bytes(b"\x1f\x8b\x08 broken")
    with pytest.raises(InputError, match=name):
        plans_of(list_shards(str(tmp_path / "in/*[7z]*")), tmp_path / "out")


def test_plans_that_took_a_pass_are_kept_until_their_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, output = shards_in(tmp_path / "in"), tmp_path / "out"
    plans = plans_of(shards, output)
    keep_plans(Storage.at(str(output)), plans)
    changed = tmp_path / "in/lines-3.jsonl"
    changed.write_text(changed.read_text().replace("r7", "r8"))
    os.utime(changed, (1, 1))
    scanned: list[str] = []
    original = planned.scan_cuts

    def spy(cuts: list[planned.Cut]) -> object:
        scanned.extend(shard.name for shard, _, _ in cuts)
        return original(cuts)

    monkeypatch.setattr(planned, "scan_cuts", spy)
    again = plans_of(list_shards(str(tmp_path / "in")), output)
    assert scanned == ["lines-3.jsonl"]
    assert [a.shard.name for a, b in zip(again, plans, strict=True) if a != b] == ["lines-3.jsonl"]


@pytest.mark.parametrize("left", [None, b"", b"no plans at all", "other"])
def test_kept_plans_that_can_not_be_read_are_made_anew(tmp_path: Path, left: bytes | str | None) -> None:
    shards, output = shards_in(tmp_path / "in"), Storage.at(str(tmp_path / "out"))
    if isinstance(left, bytes):
        output.replace(PLANS, left)
    if left == "other":
        table = pa.table({"name": ["x"]})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        output.replace(PLANS, sink.getvalue().to_pybytes())
    assert kept_plans(output, shards) == {}
    assert len(plans_of(shards, tmp_path / "out")) == 45


def test_a_file_without_a_stamp_may_change_unseen_and_is_planned_anew(tmp_path: Path) -> None:
    (shard, *_) = [shard for shard in shards_in(tmp_path / "in") if shard.is_text]
    bare = Shard(shard.name, shard.path, shard.size, "")
    output = Storage.at(str(tmp_path / "out"))
    keep_plans(output, [plan_shard(bare)])
    assert not output.exists(PLANS) and kept_plans(output, [bare]) == {}


def test_where_ray_can_not_be_started_the_job_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup")  # as Ray does

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    with RayCluster(ClusterConfig()) as cluster, pytest.raises(ClusterLost, match="timed out during startup"):
        cluster.join()


class Here:
    """Chores done in this process, and the cluster that they are done on."""

    cpus = 2

    def __init__(self, function: Any = None, **options: Any) -> None:
        self._function, self._tasks = function, list[Any]()
        self.stop = SimpleNamespace(check=lambda: None)

    def join(self) -> Any:
        return SimpleNamespace(news=lambda: None)

    @property
    def idle(self) -> bool:
        return not self._tasks

    def put(self, task: Any) -> None:
        self._tasks.append(task)

    def done(self, timeout: float) -> list[Any]:
        return [self._function(self._tasks.pop())]  # the last one first: tasks end in any order


@pytest.mark.parametrize("piece", [300, 5000, 64 << 20])
def test_tasks_scan_every_part_of_every_text_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    shards = shards_in(tmp_path / "in")
    monkeypatch.setattr("pipeline.input.pieces.PIECE", piece)
    monkeypatch.setattr(planned, "PIECE", piece)
    monkeypatch.setattr(planned, "SCANNED_HERE", 0)
    monkeypatch.setattr(planned, "Chores", Here)
    plans = plan_all(shards, cast(RayCluster, Here()), {}, lambda line: None)
    assert plans == [plan_shard(shard) for shard in shards]
    assert [plan.rows for plan in plans if plan.shard.is_text] == [0, 100, 200, 300, 400]
