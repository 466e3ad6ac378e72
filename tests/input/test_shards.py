"""The input is found wherever it lies, planned from footers, and read once, in order, in flat memory."""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.input.shard_reader import ShardReader
from pipeline.input.shards import CHUNK_ROWS, Chunk, Shard, chunks, list_shards, plan_shard


def parquet(path: Path, rows: int = 3, row_group: int = 1000, names: list[str | None] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[object]] = {"n": list(range(rows)), "prompt": [f"row {n}" for n in range(rows)]}
    if names is not None:
        columns["custom_id"] = list(names)
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


def plan_of(path: Path):  # type: ignore[no-untyped-def]
    return plan_shard(list_shards(str(path))[0])


def test_a_folder_is_searched_to_its_depths_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    for name in ("b.parquet", "a/c.parquet", ".hidden.parquet", "_work/x.parquet", "_tmp.parquet"):
        parquet(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / "a/lines.jsonl").write_text("{}\n")
    assert [s.name for s in list_shards(str(tmp_path))] == ["a/c.parquet", "a/lines.jsonl", "b.parquet"]
    assert [s.name for s in list_shards(f"{tmp_path}/")] == ["a/c.parquet", "a/lines.jsonl", "b.parquet"]


def test_an_output_within_the_input_is_no_part_of_it(tmp_path: Path) -> None:
    for name in ("x.parquet", "out/responses/x.parquet", "outer/y.parquet"):
        parquet(tmp_path / name)
    for pattern in ("", "/**/*.parquet"):
        found = list_shards(f"{tmp_path}{pattern}", str(tmp_path / "out"))
        assert [s.name for s in found] == ["outer/y.parquet", "x.parquet"]
    # An output that holds all of the input is refused where it begins.
    assert list_shards(str(tmp_path / "outer"), str(tmp_path))


def test_a_globs_characters_may_stand_in_the_name_of_what_is_there(tmp_path: Path) -> None:
    for name in ("run[1]/x.parquet", "part[2].parquet", "part2.parquet"):
        parquet(tmp_path / name)
    assert [s.name for s in list_shards(f"{tmp_path}/run[1]")] == ["x.parquet"]
    assert [s.name for s in list_shards(f"{tmp_path}/part[2].parquet")] == ["part[2].parquet"]
    assert [s.name for s in list_shards(f"{tmp_path}/part[0-9].parquet")] == ["part2.parquet"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no such file can be made")
def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet").rename(tmp_path / os.fsdecode(b"a\xff.parquet"))
    with pytest.raises(InputError, match="is not UTF-8"):
        list_shards(str(tmp_path))


def test_one_file_bears_its_own_name(tmp_path: Path) -> None:
    shard = list_shards(str(parquet(tmp_path / "in/x.parquet")))[0]
    assert (shard.name, shard.size) == ("x.parquet", (tmp_path / "in/x.parquet").stat().st_size)


def test_a_glob_names_shards_below_its_fixed_part(tmp_path: Path) -> None:
    for name in ("day=1/a.parquet", "day=2/a.parquet", "other/a.parquet"):
        parquet(tmp_path / name)
    found = list_shards(f"{tmp_path}/day=*/*.parquet")
    assert [s.name for s in found] == ["day=1/a.parquet", "day=2/a.parquet"]
    assert plan_shard(found[1]).rows == 3


def test_other_file_systems_serve_as_well(tmp_path: Path) -> None:
    root = f"memory://shards-{uuid.uuid4().hex}"
    with fsspec.open(f"{root}/in/a.parquet", "wb") as file:
        file.write(parquet(tmp_path / "a.parquet").read_bytes())
    for url in (root, f"{root}/in/a.parquet", f"{root}/in/*.parquet"):
        shard = list_shards(url)[0]
        assert shard.name.endswith("a.parquet")
        with ShardReader(plan_shard(shard)) as reader:
            assert reader.read(Chunk(shard.name, 1, 3)).column("n").to_pylist() == [1, 2]


@pytest.mark.parametrize("name", ["", "missing", "missing.parquet", "*.parquet"])
def test_no_input_is_an_error_that_names_the_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        list_shards(f"{tmp_path}/{name}")


def test_two_shards_can_not_share_one_output(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"a.jsonl and a.parquet would both become a.parquet"):
        list_shards(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"not parquet at all" * 9])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.parquet: not a readable Parquet file"):
        plan_of(tmp_path / "bad.parquet")


def test_a_shard_without_rows_has_no_chunks(tmp_path: Path) -> None:
    assert list(chunks(plan_of(parquet(tmp_path / "x.parquet", rows=0)))) == []
    (tmp_path / "y.jsonl").write_bytes(b"")
    assert list(chunks(plan_of(tmp_path / "y.jsonl"))) == []


@given(rows=st.integers(0, 2000))
def test_chunks_cover_every_row_once(rows: int) -> None:
    from pipeline.input.shards import ShardPlan

    plan = ShardPlan(Shard("x.parquet", "x.parquet", 0, ""), rows, "", (), ())
    covered = [row for chunk in chunks(plan) for row in range(chunk.start, chunk.stop)]
    assert covered == list(range(rows))
    assert all(0 < chunk.rows <= CHUNK_ROWS for chunk in chunks(plan))


@given(names=st.lists(st.sampled_from(["a", "b", "c", "", None]), max_size=12))
def test_repeated_names_are_found_and_nulls_and_empty_ones_are_not_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str | None]
) -> None:
    plan = plan_of(parquet(tmp_path_factory.mktemp("d") / "x.parquet", len(names), names=names))
    expected = tuple(n for n, name in enumerate(names) if name and name in names[:n])
    assert plan.duplicates == expected


@given(
    rows=st.integers(0, 700),
    row_group=st.integers(1, 900),
    order=st.randoms(use_true_random=False),
)
def test_any_chunk_in_any_order_reads_its_own_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: int, row_group: int, order: object
) -> None:
    plan = plan_of(parquet(tmp_path_factory.mktemp("d") / "x.parquet", rows, max(row_group, rows // 20)))
    todo = list(chunks(plan))
    order.shuffle(todo)  # type: ignore[attr-defined]
    with ShardReader(plan) as reader:
        for chunk in todo:
            assert reader.read(chunk).column("n").to_pylist() == list(range(chunk.start, chunk.stop))


def test_a_pass_in_order_opens_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(parquet(tmp_path / "x.parquet", rows=3000, row_group=1000))
    passes: list[list[int]] = []
    original = pq.ParquetFile.iter_batches

    def spy(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        passes.append(args[1])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    with ShardReader(plan) as reader:
        for chunk in chunks(plan):
            reader.read(chunk)
    assert passes == [[0], [1], [2]]


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    inner = [{"b": n, "c": n} for n in range(5)]
    columns = {"a": inner, "a.b": list("vwxyz"), "n": list(range(5)), "large": [b"x" * 1000] * 5}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=2)
    plan = plan_of(tmp_path / "x.parquet")
    cases = ((["n", "a"], ["a", "n"]), (["a.b"], ["a.b"]), (["gone"], ["a"]), (None, list(columns)))
    for asked, read in cases:
        with ShardReader(plan, asked) as reader:
            table = reader.read(Chunk("x.parquet", 0, 5))
        assert table.to_pydict() == {name: columns[name] for name in read}


def test_a_chunk_spans_row_groups_whose_structs_hold_categories(tmp_path: Path) -> None:
    roles = pa.array(["user", "assistant"] * 150).dictionary_encode()
    turns = pa.StructArray.from_arrays([roles, pa.array(["Hi"] * 300)], ["role", "content"])
    messages = pa.ListArray.from_arrays(pa.array(range(301), pa.int32()), turns)
    pq.write_table(pa.table({"messages": messages}), tmp_path / "x.parquet", row_group_size=100)
    plan = plan_of(tmp_path / "x.parquet")
    with ShardReader(plan) as reader:
        found = [turn for chunk in chunks(plan) for turn in reader.read(chunk).column("messages").to_pylist()]
    assert found == messages.to_pylist()


def test_a_shard_that_shrank_is_an_input_error(tmp_path: Path) -> None:
    plan = plan_of(parquet(tmp_path / "x.parquet", rows=10))
    parquet(tmp_path / "x.parquet", rows=5)
    with ShardReader(plan) as reader, pytest.raises(InputError, match=r"x.parquet: ends at row 5"):
        reader.read(Chunk("x.parquet", 0, 10))


@given(
    lines=st.lists(st.sampled_from([b"{}", b'{"custom_id": "a"}', b"", b"  ", b"{broken", b"\xff\xfe", b"1"]))
)
def test_json_lines_are_rows_unless_blank(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("d") / "x.jsonl"
    path.write_bytes(b"\n".join(lines))
    plan = plan_of(path)
    expected = [line for line in lines if line.strip()]
    assert (plan.rows, plan.columns) == (len(expected), ("line",))
    with ShardReader(plan) as reader:
        for chunk in chunks(plan):
            found = reader.read(chunk).column("line").to_pylist()
            assert [v.encode() if isinstance(v, str) else v for v in found] == expected


def test_json_lines_are_found_by_offset(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [json.dumps({"custom_id": f"r{n % 900}", "text": "ä" * (n % 50)}) for n in range(1000)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    plan = plan_of(path)
    assert len(plan.offsets) == 4
    assert plan.duplicates == tuple(range(900, 1000))
    with ShardReader(plan) as reader:
        for chunk in reversed(list(chunks(plan))):
            assert reader.read(chunk).column("line").to_pylist() == rows[chunk.start : chunk.stop]
        assert reader.read(Chunk("x.jsonl", 300, 310)).column("line").to_pylist() == rows[300:310]


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl"])
def test_a_shard_without_rows_is_read_as_a_table_without_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.jsonl":
        path.write_bytes(b"")
    else:
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path)
    plan = plan_of(path)
    with ShardReader(plan) as reader:
        table = reader.read(Chunk(name, 0, 0))
    assert (table.num_rows, tuple(table.column_names)) == (0, plan.columns)


def test_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    same = {plan_of(parquet(tmp_path / name)).digest for name in ("a.parquet", "b/c.parquet")}
    other = plan_of(parquet(tmp_path / "d.parquet", rows=4)).digest
    assert len(same) == 1 and other not in same


def test_the_output_lies_where_the_input_lay() -> None:
    assert Shard("a/b.jsonl", "", 0, "").output == "a/b.parquet"
    assert Shard("a/b.c.parquet", "", 0, "").output == "a/b.c.parquet"
