"""A JSON schema's type in Arrow, and its values in it: nothing is lost, nothing is bent."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answer.arrow_types import UnfitError, arrow_type

ENUM = pa.dictionary(pa.int32(), pa.string())
TEXT = pa.string()

S, INT, NUM, BOOL = ({"type": name} for name in ("string", "integer", "number", "boolean"))


def struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct(list(fields.items()))


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        (S, TEXT),
        (INT, pa.int64()),
        (NUM, pa.float64()),
        (BOOL, pa.bool_()),
        ({"type": "null"}, pa.null()),
        ({"type": "string", "format": "date"}, TEXT),
        ({"type": ["string", "null"]}, TEXT),
        ({"type": ["integer", "number"]}, pa.float64()),
        ({"enum": ["a", "b"]}, ENUM),
        ({"enum": ["a", None]}, ENUM),
        ({"const": "a"}, ENUM),
        ({"enum": [1, 2]}, pa.int64()),
        ({"enum": [1, 2.5]}, pa.float64()),
        ({"enum": [True]}, pa.bool_()),
        ({"anyOf": [{"const": "a"}, {"const": "b"}, {"type": "null"}]}, ENUM),
        ({"anyOf": [INT, {"type": "null"}]}, pa.int64()),
        ({"oneOf": [INT, NUM]}, pa.float64()),
        ({"allOf": [INT]}, pa.int64()),
        ({"anyOf": [S, {"type": "string", "format": "date"}]}, TEXT),
        ({"type": "array", "items": NUM}, pa.list_(pa.float64())),
        ({"type": "array", "prefixItems": [NUM, NUM]}, pa.list_(pa.float64())),
        ({"items": {"enum": ["a"]}}, pa.list_(ENUM)),
        (an_object(a=INT, b={"enum": ["x"]}), struct(a=pa.int64(), b=ENUM)),
        ({"properties": {"a": BOOL}}, struct(a=pa.bool_())),
        (an_object(a=an_object(b={"type": "array", "items": S})), struct(a=struct(b=pa.list_(TEXT)))),
        ({"type": "object", "additionalProperties": INT}, pa.list_(struct(key=TEXT, value=pa.int64()))),
        (
            {"$defs": {"P": an_object(x=NUM)}, "type": "array", "items": {"$ref": "#/$defs/P"}},
            pa.list_(struct(x=pa.float64())),
        ),
    ],
)
def test_what_a_schema_means(schema, kind):
    found = arrow_type(schema)
    assert found.type == kind
    assert found.text is None


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({}, "says nothing"),
        (True, "says nothing"),
        ({"type": ["string", "integer"]}, "several types"),
        ({"anyOf": [S, INT]}, "several types"),
        ({"anyOf": [an_object(a=INT), an_object(b=INT)]}, "several types"),
        ({"enum": ["a", 1]}, "several types"),
        ({"type": "object"}, "names no properties"),
        (an_object(), "names no properties"),
        ({"type": "object", "patternProperties": {"^a": INT}}, "patternProperties"),
        (an_object(a=INT, A=INT), "can't tell apart"),
        ({"type": "array", "prefixItems": [S, INT]}, "items of several types"),
        ({"allOf": [an_object(a=INT), an_object(b=INT)]}, "allOf"),
        ({"$ref": "#/nowhere"}, "says nothing"),
        ({"$defs": {"T": {"$ref": "#/$defs/T"}}, "$ref": "#/$defs/T"}, "refers to itself"),
    ],
)
def test_what_has_no_type_is_json_text_and_says_why(schema, reason):
    found = arrow_type(schema)
    assert found.type == TEXT
    assert reason in (found.text or "")
    assert json.loads(found.read({"a": [1, None]})) == {"a": [1, None]}


def test_parts_without_a_type_are_json_text_in_their_place():
    tree = {"$defs": {"T": an_object(name=S, below={"type": "array", "items": {"$ref": "#/$defs/T"}})}}
    found = arrow_type(tree | {"$ref": "#/$defs/T"})
    assert found.type == struct(name=TEXT, below=pa.list_(TEXT))
    value = found.read({"name": "a", "below": [{"name": "b", "below": []}]})
    assert value == {"name": "a", "below": ['{"name": "b", "below": []}']}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (INT, 2**63),
        (INT, 1.5),
        (INT, True),
        (INT, "1"),
        (NUM, 10**400),
        (NUM, float("inf")),
        (BOOL, 1),
        (S, 1),
        ({"enum": ["a"]}, "b"),
        ({"type": "null"}, 1),
        (an_object(a=INT), []),
        ({"type": "array", "items": INT}, {}),
        (an_object(a=an_object(b=INT)), {"a": {"b": "x"}}),
    ],
)
def test_what_does_not_fit_is_never_bent(schema, value):
    with pytest.raises(UnfitError):
        arrow_type(schema).read(value)


scalars: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "string": (S, st.text(max_size=8)),
    "integer": (INT, st.integers(-(2**63), 2**63 - 1)),
    "number": (NUM, st.floats(allow_nan=False, allow_infinity=False)),
    "boolean": (BOOL, st.booleans()),
    "enum": ({"enum": ["red", "green", "ä"]}, st.sampled_from(["red", "green", "ä"])),
    "date": ({"type": "string", "format": "date"}, st.dates().map(str)),
}


@st.composite
def schemas(draw: st.DrawFn, depth: int = 3) -> tuple[Any, st.SearchStrategy[Any]]:
    """A schema, and values that it describes."""
    kind = draw(st.sampled_from([*scalars, "list", "object"] if depth else list(scalars)))
    if kind in scalars:
        return scalars[kind]
    if kind == "list":
        items, values = draw(schemas(depth - 1))
        return {"type": "array", "items": items}, st.lists(values | st.none(), max_size=3)
    parts = {name: draw(schemas(depth - 1)) for name in draw(st.sets(st.sampled_from("abcd"), min_size=1))}
    values = {name: found | st.none() for name, (_, found) in parts.items()}
    return an_object(**{name: schema for name, (schema, _) in parts.items()}), st.fixed_dictionaries(values)


@settings(max_examples=60)
@given(st.data())
def test_values_come_back_from_parquet_as_they_were_written(data):
    schema, values = data.draw(schemas())
    found = data.draw(st.lists(values, max_size=5))
    kind = arrow_type(schema)
    read = [kind.read(json.loads(json.dumps(value))) for value in found]
    column = pa.array(read, kind.type)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"parsed": column}), sink)
    assert pq.read_table(pa.BufferReader(sink.getvalue())).column(0).to_pylist() == found
