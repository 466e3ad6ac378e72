"""How vectors lie in an output: as float32, or smaller, with a known loss.

float16: each number rounded to half precision.
int8: round(v / s), where s = max |v| / 127 of the vector itself; s stands beside it, and v is about s times
    what is stored. Each vector has its own scale, so that a row's answer doesn't depend on other rows. A
    cosine needs no scale.
binary: one bit for each number, 1 where it is above 0, eight to a byte, the first number in the highest bit:
    numpy's packbits, and "ubinary" of sentence-transformers. Compare by Hamming distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VectorForm = Literal["float32", "float16", "int8", "binary"]

SCALE = "embedding_scale"
_LEVELS = 127
_TYPES: Mapping[VectorForm, pa.DataType] = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "binary": pa.uint8(),
}


def vector_columns(form: VectorForm) -> dict[str, pa.DataType]:
    """`embedding`; `embedding_scale` where there are scales; `data`, for rows that asked with a list."""
    vector = pa.list_(_TYPES[form])
    scale = {SCALE: pa.float32()} if form == "int8" else {}
    each = {"index": pa.int32(), "embedding": vector} | scale
    return {"embedding": vector} | scale | {"data": pa.list_(pa.struct(each))}


def stored(record: Mapping[str, Any], form: VectorForm) -> dict[str, Any]:
    """The record of an output row, with its float32 vectors as they are stored."""
    if form == "float32" or record.get("embedding") is None:
        return dict(record)
    data = record.get("data")
    return {**record, **_entry(record["embedding"], form)} | {
        "data": data and [{"index": each["index"], **_entry(each["embedding"], form)} for each in data]
    }


def floats(values: Any, scale: float | None, kind: pa.DataType) -> NDArray[np.float32]:
    """A stored vector as numbers; those of a binary one are 1 and -1. kind: of the stored values."""
    if pa.types.is_uint8(kind):
        bits = np.unpackbits(np.asarray(values, np.uint8))
        return bits.astype(np.float32) * 2 - 1
    found = np.asarray(values, np.float32)
    return found if scale is None else found * np.float32(scale)


def with_floats(table: pa.Table) -> pa.Table:
    """A table of an output with its vectors, in `embedding` and `data`, as lists of float32, no scales."""
    kind = table.schema.field("embedding").type.value_type
    if pa.types.is_float32(kind):
        return table
    scales = table.column(SCALE).to_pylist() if SCALE in table.column_names else [None] * len(table)
    vectors = [
        None if values is None else floats(values, scale, kind)
        for values, scale in zip(table.column("embedding").to_pylist(), scales, strict=True)
    ]
    columns = vector_columns("float32")
    changed = {"embedding": pa.array(vectors, columns["embedding"])}
    if "data" in table.column_names:
        data = [_opened(entries, kind) for entries in table.column("data").to_pylist()]
        changed["data"] = pa.array(data, columns["data"])
    for name, column in changed.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table.drop_columns([SCALE]) if SCALE in table.column_names else table


def _entry(vector: NDArray[np.float32], form: VectorForm) -> dict[str, Any]:
    if form == "float16":
        return {"embedding": vector.astype(np.float16)}
    if form == "binary":
        return {"embedding": np.packbits(vector > 0)}
    scale = float(np.abs(vector).max(initial=0.0)) / _LEVELS
    levels = np.rint(vector / scale) if scale else np.zeros_like(vector)
    return {"embedding": levels.astype(np.int8), SCALE: scale}


def _opened(entries: list[dict[str, Any]] | None, kind: pa.DataType) -> list[dict[str, Any]] | None:
    return entries and [
        {"index": each["index"], "embedding": floats(each["embedding"], each.get(SCALE), kind)}
        for each in entries
    ]
