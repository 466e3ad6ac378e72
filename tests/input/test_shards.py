"""The input is found wherever it lies, planned from footers, and read once, in order, in flat memory."""

from __future__ import annotations

import gzip
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
from pipeline.files.storage import Storage
from pipeline.input.pieces import MOST_MARKS, Piece, cuts, joined
from pipeline.input.shard_reader import ShardReader
from pipeline.input.shards import CHUNK_ROWS, Chunk, Shard, ShardPlan, chunks, list_shards, plan_shard, scan
from pipeline.input.shards import plan_of as plan_from


def parquet(path: Path, rows: int = 3, row_group: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"n": list(range(rows)), "prompt": [f"row {n}" for n in range(rows)]}
    pq.write_table(pa.table(columns), path, row_group_size=row_group)
    return path


def plan_of(path: Path) -> ShardPlan:
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
    plan = ShardPlan(Shard("x.parquet", "x.parquet", 0, ""), rows, "", ())
    covered = [row for chunk in chunks(plan) for row in range(chunk.start, chunk.stop)]
    assert covered == list(range(rows))
    assert all(0 < chunk.rows <= CHUNK_ROWS for chunk in chunks(plan))


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
    with ShardReader(plan) as reader, pytest.raises(InputError, match=r"x.parquet: has changed since"):
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


def lines_of(plan: ShardPlan, *places: Chunk) -> list[list[str]]:
    with ShardReader(plan) as reader:
        return [reader.read(place).column("line").to_pylist() for place in places]


@pytest.mark.parametrize("packed", [False, True])
def test_json_lines_are_found_anywhere_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr("pipeline.input.jsonl.MARK_EVERY", 1000)
    rows = [json.dumps({"custom_id": f"r{n}", "text": "ä" * (n % 50)}) for n in range(1000)]
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    data = b"\xef\xbb\xbf" + "\r\n".join(rows).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    plan = plan_of(path)
    assert plan.rows == 1000 and len(plan.marks) > 20
    places = [Chunk(path.name, start, min(start + 256, 1000)) for start in (744, 0, 256, 300, 999, 310)]
    assert lines_of(plan, *places) == [rows[place.start : place.stop] for place in places]


@given(
    rows=st.lists(st.sampled_from([b"{}", b'{"a": 1}', b"", b" ", b"[" + b"x" * 40]), max_size=30),
    piece=st.integers(1, 60),
    ending=st.sampled_from([b"\n", b"\r\n"]),
)
def test_a_file_is_scanned_in_pieces_of_any_size_in_turn_or_each_by_itself(
    tmp_path_factory: pytest.TempPathFactory, rows: list[bytes], piece: int, ending: bytes
) -> None:
    path = tmp_path_factory.mktemp("d") / "x.jsonl"
    path.write_bytes(ending.join(rows))
    (path.parent / "y.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.input.pieces.PIECE", piece)
        patch.setattr("pipeline.input.jsonl.MARK_EVERY", 7)
        plan, packed = plan_of(path), plan_of(path.parent / "y.jsonl.gz")
        parts = [found for cut in cuts(plan.shard.size) for found in scan(plan.shard, *cut)]
    assert plan_from(plan.shard, parts) == plan
    assert (packed.rows, packed.digest, packed.marks) == (plan.rows, plan.digest, plan.marks)
    expected = [row.decode() for row in rows if row.strip()]
    assert plan.rows == len(expected)
    places = [Chunk("x.jsonl", n, n + 1) for n in reversed(range(plan.rows))]
    assert lines_of(plan, *places) == [[row] for row in reversed(expected)]


def test_a_large_file_has_few_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = Piece(2000, tuple((row, 10 * row) for row in range(2000)), "d")
    whole = joined([piece, piece, piece])
    assert (whole.rows, whole.marks[0]) == (6000, (0, 0))
    assert MOST_MARKS / 2 < len(whole.marks) <= MOST_MARKS
    assert joined([piece]).digest == "d" != whole.digest


@pytest.mark.parametrize("metadata", [{}, {"note": "x" * 200_000}])
def test_a_parquet_file_is_planned_by_its_footer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str]
) -> None:
    table = pa.table({"custom_id": [f"{n:09}" for n in range(50_000)]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "x.parquet", use_dictionary=False, compression="none")
    asked: list[int] = []
    read = Storage.read_range
    monkeypatch.setattr(
        Storage, "read_range", lambda self, *of: asked.append(of[2] - of[1]) or read(self, *of)
    )
    monkeypatch.setattr(Storage, "open_input", None)
    assert plan_of(tmp_path / "x.parquet").rows == 50_000
    # One request; a second one where the footer is larger.
    assert len(asked) == (2 if metadata else 1) and sum(asked) < 600_000


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
