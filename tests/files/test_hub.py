"""Data sets of the Hugging Face Hub are input, as they were at one commit (against a hub on localhost)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import ClusterConfig, JobConfig
from pipeline.errors import InputError, StorageError
from pipeline.files.storage import Storage
from pipeline.input.shard_reader import ShardReader
from pipeline.input.shards import Chunk, list_input
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.plan.opened import pinned
from pipeline.plan.planned import plan_all
from tests.files.hub_server import Hub, serving

OLD, NEW = "a" * 40, "b" * 40


def parquet(*prompts: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": list(prompts)}), sink)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def hub() -> Iterator[Hub]:
    old = {"data/train-0.parquet": parquet("a", "b"), "data/de/x.csv": b"prompt\nc\n", "README.md": b"Hi"}
    new = {**old, "data/train-1.parquet": parquet("d")}
    commits = {OLD: old, NEW: new}
    with serving(Hub("org/name", commits, {"main": NEW, "v1": OLD})) as served:
        fsspec.config.conf["hf"] = {"endpoint": served.url, "token": False}
        yield served
        del fsspec.config.conf["hf"]


def job_on(path: str) -> JobConfig:
    tree = {"model": {"path": "m"}, "input": {"path": path}, "output": {"path": "o"}}
    return pinned(JobConfig.model_validate(tree))


def rows_of(path: str) -> dict[str, list[Any]]:
    listing = list_input(path)
    found = {}
    for plan in plan_all(listing.shards, RayCluster(ClusterConfig()), {}, lambda line: None):
        with ShardReader(plan) as reader:
            table = reader.read(Chunk(plan.shard.name, 0, plan.rows))
        found[plan.shard.name] = table.column("prompt").to_pylist()
    return found


@pytest.mark.parametrize(("revision", "commit"), [("", NEW), ("@main", NEW), ("@v1", OLD), (f"@{OLD}", OLD)])
def test_the_commit_is_pinned_and_its_files_are_read(hub: Hub, revision: str, commit: str) -> None:
    path = job_on(f"hf://datasets/org/name{revision}").input.path
    assert path == f"hf://datasets/org/name@{commit}"
    hub.branches["main"] = OLD  # what others push meanwhile changes nothing
    new = {"data/train-1.parquet": ["d"]} if commit == NEW else {}
    assert rows_of(path) == {"data/de/x.csv": ["c"], "data/train-0.parquet": ["a", "b"], **new}


def test_files_folders_and_globs_are_input(hub: Hub) -> None:
    for below, names in (
        ("data/train-0.parquet", ["train-0.parquet"]),
        ("data", ["de/x.csv", "train-0.parquet", "train-1.parquet"]),
        ("data/*.parquet", ["train-0.parquet", "train-1.parquet"]),
    ):
        path = job_on(f"hf://datasets/org/name/{below}").input.path
        assert path == f"hf://datasets/org/name@{NEW}/{below}"
        assert list(rows_of(path)) == names


def test_many_footers_take_few_requests(hub: Hub) -> None:
    hub.commits[NEW] = {f"data/{n}.parquet": parquet("a") for n in range(50)}
    shards = list_input(job_on("hf://datasets/org/name/data").input.path).shards
    hub.asked.clear()
    plan_all(shards, RayCluster(ClusterConfig()), {}, lambda line: None)
    assert len(hub.asked) <= 55


@pytest.mark.parametrize("path", ["datasets/org/gone", "datasets/org/name@gone", "datasets/org", "gone"])
def test_what_the_hub_has_not_is_named(hub: Hub, path: str) -> None:
    with pytest.raises(InputError, match=f"input hf://{path}: "):
        job_on(f"hf://{path}")


def test_a_path_without_files_is_no_input(hub: Hub) -> None:
    with pytest.raises(InputError, match="file there"):
        list_input(job_on("hf://datasets/org/name/gone").input.path)


def test_the_hub_is_not_written(hub: Hub) -> None:
    with pytest.raises(StorageError, match="the Hub is read, not written"):
        Storage.at("hf://datasets/org/name/out").replace("x", b"x")
