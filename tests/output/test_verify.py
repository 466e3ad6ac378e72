"""Every way in which an output can be wrong is found and named; a sound one has no problem."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import JobConfig
from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.output.records import usage_bytes
from pipeline.output.verify import verify
from pipeline.report.status import status
from pipeline.tally import Tally
from tests.output.test_manifest import answers, tally_of

ROWS = {"a.parquet": 9, "b/c.parquet": 4}


def write_input(folder: Path, name: str, names: list[str]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"custom_id": names, "prompt": names}), path)


def begin(tmp_path: Path) -> tuple[Manifest, dict[str, ShardPlan]]:
    folder = tmp_path / "in"
    for name, rows in ROWS.items():
        write_input(folder, name, [f"row-{n}" for n in range(rows)])
    plans = {shard.name: plan_shard(shard) for shard in list_shards(str(folder))}
    job = JobConfig.model_validate(
        {"model": {"path": "m"}, "input": {"path": str(folder)}, "output": {"path": str(tmp_path / "out")}}
    )
    prints = Fingerprint.of(job, "ab" * 32, plans.values())
    manifest = Manifest(Storage.at(str(tmp_path / "out")), prints, {"input": str(folder)})
    manifest.begin()
    return manifest, plans


def commit(manifest: Manifest, plan: ShardPlan) -> None:
    table = answers(0, plan.rows)
    manifest.commit_whole(plan, table, tally_of(table))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    manifest, plans = begin(tmp_path)
    for plan in plans.values():
        commit(manifest, plan)
    manifest.finish(list(plans.values()))
    return tmp_path / "out"


def problems(out: Path, deep: bool = False) -> str:
    return "\n".join(verify(str(out), deep).problems)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_output_has_no_problem(out: Path, deep: bool) -> None:
    report = verify(str(out), deep)
    assert report.problems == []
    assert report.totals == tally_of(answers(0, 9)) + tally_of(answers(0, 4))


def test_an_unfinished_job_is_a_problem(tmp_path: Path) -> None:
    assert "_SUCCESS: is absent" in problems(tmp_path / "nowhere")
    begin(tmp_path)
    assert "_SUCCESS: is absent" in problems(tmp_path / "out")


def test_a_missing_response_is_named(out: Path) -> None:
    (out / "responses/b/c.parquet").unlink()
    assert "responses/b/c.parquet: is absent" in problems(out)


def test_a_response_of_no_shard_is_named(out: Path) -> None:
    (out / "responses/z.parquet").write_bytes((out / "responses/a.parquet").read_bytes())
    assert "responses/z.parquet: belongs to no shard" in problems(out)


def test_a_response_in_another_ones_place_is_named(out: Path) -> None:
    (out / "responses/a.parquet").write_bytes((out / "responses/b/c.parquet").read_bytes())
    assert "responses/a.parquet: holds rows 0 to 4 of b/c.parquet" in problems(out)


def test_a_truncated_response_is_named(out: Path) -> None:
    path = out / "responses/a.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert "responses/a.parquet: " in problems(out)


def test_a_response_from_elsewhere_is_named(out: Path) -> None:
    pq.write_table(answers(0, 9), out / "responses/a.parquet")
    assert "responses/a.parquet: not a file of nightherd's" in problems(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "its footer speaks of 9 rows, it has 8"),
        (lambda t: t.set_column(5, "attempts", pa.array([7] * 9, pa.int16())), "add up to"),
        (lambda t: t.set_column(0, "custom_id", pa.nulls(9, pa.string())), "9 rows have no custom_id"),
        (lambda t: t.set_column(4, "error", pa.nulls(9, t.schema.field("error").type)), "or neither"),
    ],
)
def test_rows_that_were_tampered_with_are_found(out: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = out / "responses/a.parquet"
    table = pq.read_table(path)
    kept = pq.read_metadata(path).metadata[b"nightherd"]
    pq.write_table(change(table).replace_schema_metadata({b"nightherd": kept}), path)
    assert problems(out).startswith("responses/a.parquet: ")
    assert message in problems(out)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Puts another table into a file's place, under the same note."""
    kept = pq.read_metadata(path).metadata[b"nightherd"]
    table = change(pq.read_table(path)).replace_schema_metadata({b"nightherd": kept})
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def with_column(table: pa.Table, name: str, change: Callable[[list[Any]], object]) -> pa.Table:
    values = table.column(name).to_pylist()
    change(values)
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    return table.set_column(place, field, pa.array(values, field.type))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: pa.concat_tables([t.slice(2), t.slice(0, 2)]),
        lambda t: with_column(t, "custom_id", lambda names: names.__setitem__(1, names[0])),
        lambda t: with_column(t, "usage", lambda usage: usage[0].update(total_tokens=99)),
        lambda t: with_column(t, "embedding", lambda vectors: vectors.__setitem__(0, [9.0, 9.0, 9.0])),
        lambda t: t.drop_columns(["embedding"]),
    ],
    ids=["reordered", "a name twice", "tokens of a row", "an answer", "a column"],
)
def test_rows_that_were_changed_are_found_though_all_sums_agree(out: Path, change) -> None:  # type: ignore[no-untyped-def]
    rewrite(out / "responses/a.parquet", change)
    assert problems(out) == "responses/a.parquet: has been changed since the job finished"


def test_answers_that_can_not_be_read_are_found(out: Path) -> None:
    path = out / "responses/a.parquet"
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    page = next(c for c in columns if c.path_in_schema.startswith("embedding"))
    data = bytearray(path.read_bytes())
    data[page.data_page_offset + page.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    assert problems(out).startswith("responses/a.parquet: ")


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record["record"]["model"].update(sha256="cd" * 32),
        lambda record: record["shards"].update({"a.parquet": 8}),
        lambda record: record.update(shards=["a.parquet"]),
        lambda record: record.update(totals=None),
        lambda record: record["totals"].update(rows="13"),
        lambda record: record.update(about=["in"]),
    ],
)
def test_a_record_that_was_tampered_with_is_found(out: Path, damage) -> None:  # type: ignore[no-untyped-def]
    record = json.loads((out / "_SUCCESS").read_bytes())
    damage(record)
    (out / "_SUCCESS").write_text(json.dumps(record))
    assert problems(out).startswith("_SUCCESS: ")


def test_status_of_a_record_that_was_tampered_with_says_so(out: Path) -> None:
    (out / "_SUCCESS").write_text('{"fingerprint": "ab", "totals": 3, "shards": []}')
    with pytest.raises(OutputError, match="can't be read"):
        status(str(out))


def test_a_usage_file_without_figures_is_found(out: Path) -> None:
    table = pq.read_table(out / "usage.parquet")
    pq.write_table(
        with_column(table, "rows", lambda rows: rows.clear() or rows.extend([None] * 2)),
        out / "usage.parquet",
    )
    assert problems(out).startswith("usage.parquet: can't be read")


def test_totals_that_do_not_agree_are_found(out: Path) -> None:
    record = json.loads((out / "_SUCCESS").read_bytes())
    record["totals"]["prompt_tokens"] += 1
    (out / "_SUCCESS").write_text(json.dumps(record))
    assert problems(out).startswith("_SUCCESS: says")


def test_a_usage_file_that_does_not_agree_is_found(out: Path) -> None:
    (out / "usage.parquet").write_bytes(usage_bytes({"a.parquet": Tally(rows=9)}))
    assert "usage.parquet: has 1 rows, not one for each of 2 shards" in problems(out)
    (out / "usage.parquet").write_bytes(usage_bytes({name: Tally(rows=n) for name, n in ROWS.items()}))
    assert "usage.parquet: a.parquet: says" in problems(out)
    (out / "usage.parquet").unlink()
    assert "usage.parquet: is absent" in problems(out)


def test_leftovers_of_the_work_are_found(out: Path) -> None:
    (out / "_work").mkdir()
    (out / "_work/progress.json").write_text("{}")
    assert "_work: 1 file(s) left" in problems(out)


def test_an_input_that_changed_is_found(out: Path) -> None:
    folder = out.parent / "in"
    write_input(folder, "a.parquet", [f"row-{n}" for n in range(8)])
    write_input(folder, "b/c.parquet", [f"other-{n}" for n in range(4)])
    write_input(folder, "d.parquet", [])
    found = problems(out)
    assert "a.parquet: has 8 rows, its answers are 9" in found
    assert "b/c.parquet: the input has changed" in found
    assert "d.parquet: is new in the input" in found


def test_answers_in_the_wrong_order_are_found_by_a_deep_look(tmp_path: Path) -> None:
    manifest, plans = begin(tmp_path)
    for plan in plans.values():
        table = answers(0, plan.rows)
        table = pa.concat_tables([table.slice(2), table.slice(0, 2)])
        manifest.commit_whole(plan, table, tally_of(table))
    manifest.finish(list(plans.values()))
    assert problems(tmp_path / "out") == ""
    assert "a.parquet: row 0 is 'row-0', the answer in its place is 'row-2''s" in problems(
        tmp_path / "out", True
    )


def test_an_input_that_is_gone_matters_to_a_deep_look_only(out: Path) -> None:
    (out.parent / "in").rename(out.parent / "moved")
    assert problems(out) == ""
    assert "the input can't be read" in problems(out, deep=True)


class Killed(BaseException):
    """The process is gone: nothing catches this, nothing more is written."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, after: bool) -> None:
    """Dies before or after the step-th change of the output."""
    left = [step]

    def dying(original):  # type: ignore[no-untyped-def]
        def change(*args, **kwargs):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Killed
            result = original(*args, **kwargs)
            if left[0] == 0:
                raise Killed
            return result

        return change

    for name in ("_put_local", "_remove_tree"):
        monkeypatch.setattr(Storage, name, dying(getattr(Storage, name)))


def run_to_the_end(tmp_path: Path) -> list[Chunk]:
    """What a driver does, from the start or from wherever it was killed; the chunks it had to compute."""
    manifest, plans = begin(tmp_path)
    computed: list[Chunk] = []
    done = manifest.finished_shards()
    for plan in (plan for name, plan in plans.items() if name not in done):
        had = manifest.finished_chunks(plan.shard.name)
        for start, stop in [(0, 3), (3, plan.rows)]:
            chunk = Chunk(plan.shard.name, start, stop)
            if chunk not in had:
                table = answers(start, stop)
                manifest.commit_chunk(chunk, table, tally_of(table))
                computed.append(chunk)
        manifest.commit_shard(plan)
    manifest.finish(list(plans.values()))
    return computed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 13))
def test_a_job_killed_at_any_step_goes_on_and_redoes_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, after: bool
) -> None:
    """Steps: the record; twice two chunks, their shard, the chunks' removal; usage, success, the end."""
    with monkeypatch.context() as patch:
        kill_at(patch, step, after)
        with pytest.raises(Killed):
            run_to_the_end(tmp_path)
    committed = {path for path in (tmp_path / "out/responses").rglob("*") if path.is_file()}
    unchanged = {path: path.stat().st_mtime_ns for path in committed}
    run_to_the_end(tmp_path)
    assert problems(tmp_path / "out", deep=True) == ""
    assert {path: path.stat().st_mtime_ns for path in committed} == unchanged


def test_status_of_a_finished_job(out: Path) -> None:
    found = status(str(out))
    assert (found.state, found.rows_done, found.rows_total) == ("finished", 13, 13)
    assert (found.shards_done, found.shards_total) == (2, 2)
    assert str(found).startswith("finished: 13 of 13 rows, 2 of 2 shards")


def test_status_of_a_job_under_way(tmp_path: Path) -> None:
    manifest, plans = begin(tmp_path)
    commit(manifest, plans["a.parquet"])
    stopped = status(str(tmp_path / "out"))
    assert (stopped.state, stopped.rows_done, stopped.rows_total) == ("stopped", 9, 13)
    assert (stopped.shards_done, stopped.shards_total) == (1, 2)
    told = {
        "updated": time.time(),
        "rows_done": 11,
        "tally": Tally(rows=11).to_dict(),
        "rows_per_second": 2.5,
    }
    manifest.output.replace("_work/progress.json", json.dumps(told).encode())
    running = status(str(tmp_path / "out"))
    assert (running.state, running.rows_done, running.tally.rows) == ("running", 11, 11)
    assert "2.5 rows a second" in str(running)
    manifest.output.replace("_work/progress.json", json.dumps(told | {"updated": 0}).encode())
    assert status(str(tmp_path / "out")).state == "stopped"


def test_status_of_a_retry_counts_what_is_still_to_be_retried_as_open(out: Path) -> None:
    record = json.loads((out / "_SUCCESS").read_bytes())
    Manifest(Storage.at(str(out)), Fingerprint(record["record"])).reopen()
    found = status(str(out))
    assert (found.rows_done, found.rows_total) == (12, 13)
    assert (found.shards_done, found.shards_total) == (1, 2)
    assert found.tally.failed == 0


def test_status_where_no_job_has_begun(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no job has begun"):
        status(str(tmp_path))
