"""Names that stand in a shard more than once are found as its rows are read, and no later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.input import repeats
from pipeline.input.repeats import Repeats, Seen
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard

names_of_rows = st.lists(st.sampled_from(["a", "b", "c", "", None]), max_size=40)


def plan_of(folder: Path, kind: str, names: list[str | None]) -> ShardPlan:
    path = folder / f"x.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps({"custom_id": name}) for name in names))
    else:
        columns = {"custom_id": pa.array(names, pa.string()), "n": list(range(len(names)))}
        pq.write_table(pa.table(columns), path, row_group_size=3)
    return plan_shard(list_shards(str(path))[0])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@given(names=names_of_rows, block=st.integers(1, 10), cut=st.integers(0, 40), before=st.booleans())
def test_repeated_names_are_found_in_any_order_and_nulls_and_empty_ones_are_no_names(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    names: list[str | None],
    block: int,
    cut: int,
    before: bool,
) -> None:
    plan = plan_of(tmp_path_factory.mktemp("d"), kind, names)
    expected = {n for n, name in enumerate(names) if name and name in names[:n]}
    parts = [Chunk("x", 0, min(cut, plan.rows)), Chunk("x", min(cut, plan.rows), plan.rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "_READ_ROWS", block)
        found = Repeats(plan)
        for part in parts if before else reversed(parts):
            assert found.within(part) == {n for n in expected if part.start <= n < part.stop}


@given(st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=12))
def test_a_growing_set_tells_what_it_has_seen(parts: list[list[int]]) -> None:
    seen, known = Seen(), set[int]()
    for part in parts:
        expected = []
        for place, value in enumerate(part):
            if value and value in known:
                expected.append(place)
            known.add(value)
        assert seen.add(np.array(part, np.uint64)).tolist() == expected


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_names_are_read_as_far_as_rows_are_asked_for(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[object] = []
    original = repeats.name_hash
    monkeypatch.setattr(repeats, "name_hash", lambda value: hashed.append(value) or original(value))
    monkeypatch.setattr(repeats, "_READ_ROWS", 100)
    plan = plan_of(tmp_path, kind, [f"r{n % 900}" for n in range(1000)])
    found = Repeats(plan)
    assert not hashed
    assert found.within(Chunk("x", 0, 256)) == frozenset() and len(hashed) == 300
    assert found.within(Chunk("x", 0, 256)) == frozenset() and len(hashed) == 300
    assert found.within(Chunk("x", 950, 1000)) == set(range(950, 1000)) and len(hashed) == 1000


def test_without_the_column_nothing_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "a"]}), tmp_path / "x.parquet")
    plan = plan_shard(list_shards(str(tmp_path))[0])
    (tmp_path / "x.parquet").unlink()
    assert Repeats(plan).within(Chunk("x.parquet", 0, 2)) == frozenset()


def test_a_shard_whose_names_are_broken_is_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "parquet", ["a", "b"])
    path = tmp_path / "x.parquet"
    data = path.read_bytes()
    path.write_bytes(b"PAR1" + b"\xff" * 60 + data[64:])
    with pytest.raises(InputError, match=r"x\.parquet: custom_id can't be read"):
        Repeats(plan).within(Chunk("x.parquet", 0, 2))
