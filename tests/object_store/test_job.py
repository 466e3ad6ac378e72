"""A job whose input and output lie on S3."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.config import JobConfig
from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from tests.object_store.tables import put_table
from tests.output.test_manifest import answers, tally_of
from tests.s3_server import S3Server

ROWS = {"a.parquet": 600, "b/c.parquet": 4}


def begin(url: str) -> tuple[Manifest, dict[str, ShardPlan]]:
    plans = {shard.name: plan_shard(shard) for shard in list_shards(f"{url}/in")}
    job = JobConfig.model_validate(
        {"model": {"path": "m"}, "input": {"path": f"{url}/in"}, "output": {"path": f"{url}/out"}}
    )
    prints = Fingerprint.of(job, "ab" * 32, plans.values())
    manifest = Manifest(Storage.at(f"{url}/out"), prints, {"input": f"{url}/in"})
    manifest.begin()
    return manifest, plans


@pytest.fixture
def job_url(server: S3Server) -> str:
    """Where a job's input lies."""
    url = f"s3://bucket/{uuid.uuid4().hex}"
    for name, rows in ROWS.items():
        names = [f"row-{number}" for number in range(rows)]
        put_table(Storage.at(f"{url}/in"), name, pa.table({"custom_id": names, "prompt": names}))
    return url


def commit(manifest: Manifest, chunk: Chunk) -> bool:
    table = answers(chunk.start, chunk.stop)
    return manifest.commit_chunk(chunk, table, tally_of(table))


def test_a_job_from_begin_to_its_verification(job_url: str) -> None:
    manifest, plans = begin(job_url)
    for start in (512, 256, 0):
        assert commit(manifest, Chunk("a.parquet", start, min(600, start + 256)))
        assert not commit(manifest, Chunk("a.parquet", start, min(600, start + 256)))
    manifest.commit_shard(plans["a.parquet"])
    manifest.commit_whole(plans["b/c.parquet"], answers(0, 4), tally_of(answers(0, 4)))
    totals = manifest.finish(list(plans.values()))
    assert list(manifest.output.list()) == [
        "_SUCCESS",
        "responses/a.parquet",
        "responses/b/c.parquet",
        "usage.parquet",
    ]
    report = verify(f"{job_url}/out", deep=True)
    assert report.problems == []
    assert replace(report.totals, seconds=0) == replace(totals, seconds=0)


def test_a_job_is_resumed_where_it_was_stopped(job_url: str) -> None:
    manifest, plans = begin(job_url)
    manifest.commit_whole(plans["b/c.parquet"], answers(0, 4), tally_of(answers(0, 4)))
    commit(manifest, Chunk("a.parquet", 0, 256))

    resumed, _ = begin(job_url)
    assert list(resumed.finished_shards()) == ["b/c.parquet"]
    assert list(resumed.finished_chunks("a.parquet")) == [Chunk("a.parquet", 0, 256)]
    with pytest.raises(OutputError, match="256 of 600 rows"):
        resumed.commit_shard(plans["a.parquet"])
    for start in (256, 512):
        assert commit(resumed, Chunk("a.parquet", start, min(600, start + 256)))
    resumed.commit_shard(plans["a.parquet"])
    resumed.finish(list(plans.values()))
    assert verify(f"{job_url}/out", deep=True).problems == []
    assert Manifest(resumed.output, resumed.fingerprint).begin(), "it is finished"


def test_a_job_on_a_server_that_fails_now_and_then_is_whole(job_url: str, server: S3Server) -> None:
    server.every = 7
    manifest, plans = begin(job_url)
    for start in (0, 256, 512):
        commit(manifest, Chunk("a.parquet", start, min(600, start + 256)))
    manifest.commit_shard(plans["a.parquet"])
    manifest.commit_whole(plans["b/c.parquet"], answers(0, 4), tally_of(answers(0, 4)))
    manifest.finish(list(plans.values()))
    assert verify(f"{job_url}/out", deep=True).problems == []
    assert len(server.requests) > 7 * 10
