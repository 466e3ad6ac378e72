"""Vectors in an output: what each form keeps of them, and that readers get numbers back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pipeline.answer.vector_forms import VectorForm, floats, stored, vector_columns, with_floats
from pipeline.output.export import export
from pipeline.report.row_batch import RowBatch
from tests.given_job import Job

Vector = NDArray[np.float32]
numbers = st.floats(-100, 100, width=32)
vectors = st.integers(1, 5).flatmap(lambda length: arrays(np.float32, 8 * length, elements=numbers))


def column(vector: Vector, form: VectorForm) -> pa.Table:
    return pa.Table.from_pylist([stored({"embedding": vector}, form)], schema=pa.schema(vector_columns(form)))


def read_back(vector: Vector, form: VectorForm) -> Vector:
    (found,) = with_floats(column(vector, form)).column("embedding").to_pylist()
    return np.float32(found)


@given(vectors)
def test_float32_is_the_vector(vector):
    assert np.array_equal(read_back(vector, "float32"), vector)


@given(vectors)
def test_float16_rounds_each_number(vector):
    assert np.array_equal(read_back(vector, "float16"), vector.astype(np.float16).astype(np.float32))


@given(vectors)
def test_int8_is_off_by_half_a_level_at_most(vector):
    level = np.abs(vector).max() / 127
    assert np.abs(read_back(vector, "int8") - vector).max() <= 0.5001 * level
    (row,) = column(vector, "int8").to_pylist()
    assert row["embedding_scale"] == pytest.approx(level, rel=1e-6)
    assert max(map(abs, row["embedding"])) == (127 if level > 1e-37 else 0) or level < 1e-37


@given(vectors)
def test_binary_keeps_the_signs_in_the_order_of_packbits(vector):
    (row,) = column(vector, "binary").to_pylist()
    assert row["embedding"] == np.packbits(vector > 0).tolist()
    assert np.array_equal(read_back(vector, "binary") > 0, vector > 0)


@pytest.mark.parametrize("form", ["float16", "int8", "binary"])
def test_a_vector_of_zeros_stays_one(form):
    assert not np.any(read_back(np.zeros(8, np.float32), form) > 0)


@pytest.mark.parametrize(
    ("form", "kind"), [("float16", pa.float16()), ("int8", pa.int8()), ("binary", pa.uint8())]
)
def test_an_output_has_lists_of_one_length_and_its_readers_get_floats(tmp_path: Path, form, kind):
    vector = [0.5, -0.25, 0.125, -1, 0.5, -0.25, 0.125, 1]
    outcomes = [("embedding", [vector]), ("error", "invalid_request"), ("embedding", [vector, vector])]
    Job({"a.parquet": outcomes}, "embed", str(tmp_path / "out"), vectors=form).finish()
    table = pq.read_table(tmp_path / "out/responses/a.parquet")
    assert table.schema.field("embedding").type == pa.list_(kind, 1 if form == "binary" else 8)
    assert ("embedding_scale" in table.column_names) == (form == "int8")
    kept = np.sign(vector) if form == "binary" else np.float32(vector)
    near = pytest.approx(kept, abs=0.005)
    assert [v and v == near for v in RowBatch("a", 0, table).vectors.to_pylist()] == [True, None, True]
    export(str(tmp_path / "out"), str(tmp_path / "results.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    bodies = [line["response"]["body"] for line in lines]
    assert [[each["embedding"] == near for each in body["data"]] for body in (bodies[0], bodies[2])] == [
        [True],
        [True, True],
    ]


def test_floats_of_int8_need_their_scale():
    assert floats([127, -127], 0.5, pa.int8()).tolist() == [63.5, -63.5]
