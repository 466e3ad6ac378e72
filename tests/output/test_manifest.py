"""Commits: whole or absent, the first wins, totals agree, and an output belongs to one job."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import JobConfig
from pipeline.errors import OutputError
from pipeline.files.input_file import InputFile
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, Shard, ShardPlan, chunks
from pipeline.output.assembly import cover
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import Footer, count
from pipeline.output.manifest import Manifest
from pipeline.output.records import SUCCESS, read_record
from pipeline.tally import Tally

SCHEMA = pa.schema(
    {
        "custom_id": pa.string(),
        "status_code": pa.int16(),
        "embedding": pa.list_(pa.float32()),
        "usage": pa.struct(
            {
                "prompt_tokens": pa.int64(),
                "completion_tokens": pa.int64(),
                "total_tokens": pa.int64(),
                "prompt_tokens_details": pa.struct({"cached_tokens": pa.int64()}),
            }
        ),
        "error": pa.struct({"code": pa.string()}),
        "attempts": pa.int16(),
    }
)


def answers(start: int, stop: int, dimensions: int = 3, failing: int = 5) -> pa.Table:
    """Rows of which every `failing`-th has an error and no usage."""
    return pa.Table.from_pylist(
        [_error(n) if n % failing == failing - 1 else _answer(n, dimensions) for n in range(start, stop)],
        SCHEMA,
    )


def _error(n: int) -> dict[str, object]:
    return {"custom_id": f"row-{n}", "status_code": 400, "error": {"code": "invalid_request"}, "attempts": 1}


def _answer(n: int, dimensions: int) -> dict[str, object]:
    usage = {"prompt_tokens": n, "completion_tokens": 2, "total_tokens": n + 2}
    return {
        "custom_id": f"row-{n}",
        "status_code": 200,
        "embedding": [float(n)] * dimensions,
        "usage": usage | {"prompt_tokens_details": {"cached_tokens": 1}},
        "attempts": 1 + n % 2,
    }


def tally_of(table: pa.Table) -> Tally:
    return replace(count(table), seconds=0.5)


def plan(rows: int, name: str = "a/x.parquet") -> ShardPlan:
    return ShardPlan(Shard(name, f"/in/{name}", rows, ""), rows, f"digest-{rows}", ("prompt",))


def job(**settings: object) -> JobConfig:
    return JobConfig.model_validate(
        {"model": {"path": "m.gguf"}, "input": {"path": "in"}, "output": {"path": "out"}, **settings}
    )


def fingerprint(*plans: ShardPlan, sha256: str = "ab" * 32, **settings: object) -> Fingerprint:
    return Fingerprint.of(job(**settings), sha256, plans)


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    local = request.param == "local"
    return Storage.at(str(tmp_path / "out") if local else f"memory://manifest-{uuid.uuid4().hex}/out")


def begun(output: Storage, *plans: ShardPlan) -> Manifest:
    manifest = Manifest(output, fingerprint(*plans), {"name": "test"})
    assert not manifest.begin()
    return manifest


def commit(manifest: Manifest, chunk: Chunk, dimensions: int = 3) -> bool:
    table = answers(chunk.start, chunk.stop, dimensions)
    return manifest.commit_chunk(chunk, table, tally_of(table))


def read(output: Storage, name: str) -> pa.Table:
    with output.open_input(name) as file:
        return pq.read_table(file)


def test_a_job_from_first_chunk_to_success(output: Storage) -> None:
    big, small, empty = plan(600), plan(7, "b.jsonl"), plan(0, "c.parquet")
    manifest = begun(output, big, small, empty)
    for chunk in reversed(list(chunks(big))):
        assert commit(manifest, chunk)
    assert sum(manifest.finished_chunks(big.shard.name).values(), Tally()).rows == 600
    assert manifest.finished_shards() == {}
    tallies = [manifest.commit_shard(big)]
    tallies.append(manifest.commit_whole(small, answers(0, 7), tally_of(answers(0, 7))))
    tallies.append(manifest.commit_whole(empty, SCHEMA.empty_table(), Tally()))
    assert manifest.finished_shards() == dict(
        zip(("a/x.parquet", "b.jsonl", "c.parquet"), tallies, strict=True)
    )
    totals = manifest.finish([big, small, empty])

    assert totals == sum(tallies, Tally())
    assert list(output.list()) == [
        "_SUCCESS",
        "responses/a/x.parquet",
        "responses/b.parquet",
        "responses/c.parquet",
        "usage.parquet",
    ]
    assert read(output, "responses/a/x.parquet").column("custom_id").to_pylist() == [
        f"row-{n}" for n in range(600)
    ]
    usage = read(output, "usage.parquet").to_pylist()
    assert [row["shard"] for row in usage] == ["a/x.parquet", "b.jsonl", "c.parquet"]
    assert {"shard": "a/x.parquet", "reused": 0, **usage[0]} == usage[0] | tallies[0].to_dict()
    success = json.loads(output.read_bytes("_SUCCESS"))
    assert success["fingerprint"] == manifest.fingerprint.digest
    assert success["model_sha256"] == "ab" * 32
    assert success["shards"] == {"a/x.parquet": 600, "b.jsonl": 7, "c.parquet": 0}
    assert success["totals"] == totals.to_dict()
    assert {"nightherd", "ray", "llama-cpp-python", "pyarrow", "python"} <= success["versions"].keys()


def test_vectors_of_one_length_become_fixed_size_lists(output: Storage) -> None:
    shard = plan(300)
    manifest = begun(output, shard)
    for chunk in chunks(shard):
        commit(manifest, chunk)
    manifest.commit_shard(shard)
    table = read(output, "responses/a/x.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert table.column("embedding").to_pylist() == answers(0, 300).column("embedding").to_pylist()


def test_vectors_of_several_lengths_stay_lists(output: Storage) -> None:
    shard = plan(300)
    manifest = begun(output, shard)
    for dimensions, chunk in enumerate(chunks(shard), 3):
        commit(manifest, chunk, dimensions)
    manifest.commit_shard(shard)
    table = read(output, "responses/a/x.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    assert {len(v) for v in table.column("embedding").to_pylist() if v} == {3, 4}


def test_the_first_commit_of_a_chunk_wins(output: Storage) -> None:
    shard = plan(10)
    manifest = begun(output, shard)
    chunk = Chunk(shard.shard.name, 0, 10)
    assert commit(manifest, chunk, 3)
    assert not commit(manifest, chunk, 4)
    manifest.commit_shard(shard)
    assert len(read(output, "responses/a/x.parquet").column("embedding")[0]) == 3


def test_a_shard_put_together_twice_at_once_is_committed_once(output: Storage) -> None:
    shard = plan(1000)
    manifest = begun(output, shard)
    for chunk in chunks(shard):
        commit(manifest, chunk)
    with ThreadPoolExecutor(4) as pool:
        tallies = list(pool.map(lambda _: manifest.commit_shard(shard), range(4)))
    assert len(set(tallies)) == 1 and tallies[0].rows == 1000
    assert manifest.commit_shard(shard) == tallies[0]


def test_a_shard_with_missing_rows_is_not_committed(output: Storage) -> None:
    shard = plan(600)
    manifest = begun(output, shard)
    commit(manifest, Chunk(shard.shard.name, 0, 256))
    commit(manifest, Chunk(shard.shard.name, 512, 600))
    with pytest.raises(OutputError, match=r"a/x.parquet: its chunks hold 344 of 600 rows"):
        manifest.commit_shard(shard)
    assert manifest.finished_shards() == {}
    with pytest.raises(OutputError, match=r"not every shard is committed: a/x.parquet"):
        manifest.finish([shard])
    assert not output.exists("_SUCCESS")


def test_overlapping_chunks_count_once(output: Storage) -> None:
    shard = plan(300)
    manifest = begun(output, shard)
    for start, stop in [(0, 256), (0, 16), (16, 272), (256, 300), (272, 300)]:
        commit(manifest, Chunk(shard.shard.name, start, stop))
    assert manifest.commit_shard(shard).rows == 300
    ids = read(output, "responses/a/x.parquet").column("custom_id").to_pylist()
    assert ids == [f"row-{n}" for n in range(300)]


@given(cuts=st.sets(st.integers(1, 99)), others=st.lists(st.tuples(st.integers(0, 99), st.integers(1, 30))))
def test_a_full_cover_is_found_among_any_others(cuts: set[int], others: list[tuple[int, int]]) -> None:
    edges = [0, *sorted(cuts), 100]
    tiling = [Chunk("x", a, b) for a, b in pairwise(edges)]
    chosen = cover([*tiling, *(Chunk("x", a, min(100, a + n)) for a, n in others)])
    assert [row for chunk in chosen for row in range(chunk.start, chunk.stop)] == list(range(100))


@given(ranges=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=8))
def test_a_cover_never_holds_a_row_twice(ranges: list[tuple[int, int]]) -> None:
    chosen = cover(Chunk("x", a, a + n) for a, n in ranges)
    rows = [row for chunk in chosen for row in range(chunk.start, chunk.stop)]
    assert rows == sorted(set(rows))
    assert bool(chosen) == bool(ranges)


def test_answers_that_contradict_their_tally_are_not_committed(output: Storage) -> None:
    manifest = begun(output, plan(10))
    table = answers(0, 10)
    wrong = replace(tally_of(table), prompt_tokens=1)
    with pytest.raises(OutputError, match="add up to"):
        manifest.commit_chunk(Chunk("a/x.parquet", 0, 10), table, wrong)
    with pytest.raises(OutputError, match="9 answers for 10 rows"):
        manifest.commit_whole(plan(10), table.slice(1), wrong)
    assert manifest.finished_chunks("a/x.parquet") == {}


def test_a_late_worker_leaves_nothing_behind_a_finished_job(output: Storage) -> None:
    shard = plan(10)
    manifest = begun(output, shard)
    manifest.commit_whole(shard, answers(0, 10), tally_of(answers(0, 10)))
    manifest.finish([shard])
    before = list(output.list())
    assert not commit(manifest, Chunk(shard.shard.name, 0, 10))
    assert list(output.list()) == before


def test_a_resumed_job_finds_what_is_done(output: Storage) -> None:
    shard, other = plan(300), plan(5, "y.parquet")
    first = begun(output, shard, other)
    first.commit_whole(other, answers(0, 5), tally_of(answers(0, 5)))
    commit(first, Chunk(shard.shard.name, 0, 256))
    second = Manifest(output, fingerprint(shard, other))
    assert not second.begin()
    assert second.finished_shards() == {"y.parquet": tally_of(answers(0, 5))}
    assert second.finished_chunks("a/x.parquet") == {Chunk("a/x.parquet", 0, 256): tally_of(answers(0, 256))}


def test_the_first_note_of_a_repacked_model_goes_to_success(output: Storage) -> None:
    manifest = begun(output)
    manifest.note_repack({"copied": True, "agreement": 0.97})
    manifest.note_repack({"copied": True, "agreement": 0.96})
    manifest.finish([])
    assert (read_record(output, SUCCESS) or {})["cpu_repack"] == {"copied": True, "agreement": 0.97}
    manifest.note_repack({"copied": True})
    assert list(output.list()) == [SUCCESS, "usage.parquet"]


def test_a_finished_job_says_so_and_clears_what_a_crash_left(output: Storage) -> None:
    shard = plan(0)
    manifest = begun(output, shard)
    manifest.commit_whole(shard, SCHEMA.empty_table(), Tally())
    manifest.finish([shard])
    output.replace("_work/progress.json", b"{}")
    assert Manifest(output, fingerprint(shard)).begin()
    assert not output.exists("_work/progress.json")


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("other", "line"),
    [
        (fingerprint(plan(5)), r"input.a/x.parquet.rows: 5, but was 0"),
        (fingerprint(plan(0), sha256="cd" * 32), r'model.sha256: "cdcd.*", but was "abab'),
        (
            fingerprint(plan(0), request={"defaults": {"seed": 1}}),
            r"request.defaults.seed: 1, but was absent",
        ),
        (fingerprint(plan(0), engine={"kv_type": "q8_0"}), r'engine.kv_type: "q8_0", but was "f16"'),
        (fingerprint(plan(0), output={"path": "o", "keep": ["n"]}), r'output.keep: \["n"\], but was \[\]'),
    ],
)
def test_another_job_is_refused_and_told_why(
    output: Storage, other: Fingerprint, line: str, finished: bool
) -> None:
    manifest = begun(output, plan(0))
    if finished:
        manifest.commit_whole(plan(0), SCHEMA.empty_table(), Tally())
        manifest.finish([plan(0)])
    with pytest.raises(OutputError, match=line):
        Manifest(output, other).begin()


def test_settings_that_change_no_result_make_no_other_job() -> None:
    first = fingerprint(plan(3))
    elsewhere = fingerprint(
        plan(3),
        name="again",
        engine={"slots": 7, "threads": 2, "batch": 64},
        cluster={"actors": 3},
        input={"path": "s3://elsewhere"},
    )
    assert first.digest == elsewhere.digest
    assert first.differences(elsewhere) == []


def test_a_folder_with_strange_files_is_not_taken(output: Storage) -> None:
    output.replace("thesis.txt", b"precious")
    with pytest.raises(OutputError, match=r"holds thesis\.txt"):
        Manifest(output, fingerprint()).begin()


def test_a_driver_that_begins_while_another_does_joins_it(output: Storage) -> None:
    class Late(Manifest):
        def _found(self) -> int:
            begun(output, plan(5))
            return super()._found()

    assert not Late(output, fingerprint(plan(5))).begin()


def test_a_driver_that_begins_while_another_finishes_finds_the_job_finished(output: Storage) -> None:
    class Late(Manifest):
        def _found(self) -> int:
            first = begun(output, plan(0))
            first.commit_whole(plan(0), SCHEMA.empty_table(), Tally())
            first.finish([plan(0)])
            return super()._found()

        def _write(self, name: str, record: Mapping[str, Any]) -> None: ...

    assert Late(output, fingerprint(plan(0))).begin()


def test_a_job_whose_record_is_lost_goes_on_with_what_is_committed(output: Storage) -> None:
    shard, other = plan(10), plan(5, "y.parquet")
    first = begun(output, shard, other)
    first.commit_whole(other, answers(0, 5), tally_of(answers(0, 5)))
    commit(first, Chunk(shard.shard.name, 0, 4))
    output.remove("_work/job.json")
    with pytest.raises(OutputError, match=r"answers to another version of a/x\.parquet"):
        begun(output, plan(3))
    again = begun(output, shard, other)
    assert set(again.finished_shards()) == {"y.parquet"}
    assert set(again.finished_chunks("a/x.parquet")) == {Chunk("a/x.parquet", 0, 4)}


@pytest.mark.parametrize("place", [0.3, 0.9, 1.0])
def test_a_damaged_chunk_is_named_and_its_answers_are_never_taken(output: Storage, place: float) -> None:
    """place: of the damage, as a part of the file."""
    shard = plan(300)
    manifest = begun(output, shard)
    commit(manifest, Chunk(shard.shard.name, 0, 256))
    commit(manifest, Chunk(shard.shard.name, 256, 300))
    name = manifest.chunk_name(Chunk(shard.shard.name, 0, 256))
    data = bytearray(output.read_bytes(name))
    at = int(place * len(data)) - 9
    data[at : at + 9] = bytes(9)
    output.replace(name, bytes(data))
    with pytest.raises(OutputError, match=r"0-256\.parquet: .*; remove it, and nightherd run"):
        manifest.commit_shard(shard)
    assert not output.exists("responses/a/x.parquet")


def test_a_chunk_that_goes_while_it_is_read_is_absent_not_damaged(
    output: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = begun(output, plan(300))
    commit(manifest, Chunk("a/x.parquet", 0, 256))

    def gone(file: InputFile, count: int) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(InputFile, "_whole", gone)
    assert manifest.finished_chunks("a/x.parquet") == {}


def test_a_response_that_went_missing_is_named_and_can_be_done_again(output: Storage) -> None:
    shards = [plan(10), plan(5, "y.parquet")]
    manifest = begun(output, *shards)
    for shard in shards:
        manifest.commit_whole(shard, answers(0, shard.rows), tally_of(answers(0, shard.rows)))
    manifest.finish(shards)
    output.remove("responses/y.parquet")
    for refuse in (lambda: manifest.finish(shards), manifest.reopen):
        with pytest.raises(
            OutputError, match=r"y\.parquet \(None of 5 rows\); where _SUCCESS says otherwise"
        ):
            refuse()
    assert output.exists(SUCCESS)
    output.remove(SUCCESS)
    again = begun(output, *shards)
    again.commit_whole(shards[1], answers(0, 5), tally_of(answers(0, 5)))
    assert again.finish(shards).rows == 15


def test_a_response_of_another_job_is_refused(output: Storage) -> None:
    manifest = begun(output, plan(5))
    manifest.commit_whole(plan(5), answers(0, 5), tally_of(answers(0, 5)))
    other = Manifest(output, fingerprint(plan(5), sha256="cd" * 32))
    with pytest.raises(OutputError, match=r"responses/a/x.parquet: belongs to another job"):
        other.finished_shards()


def test_a_footer_survives_its_bytes() -> None:
    footer = Footer("f", "a/ü.parquet", 3, 9, Tally(rows=6, seconds=0.1), (2, 5))
    assert Footer.from_bytes(footer.to_bytes()) == footer
