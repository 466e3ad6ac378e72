"""Values keep what the file says, whichever way they reach a request: templates, JSON, names.

After positron#15887 and pandas#57224 (decimals), arrow#44853 and ray#27327 (extension types), arrow#34614
(nanoseconds).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import RequestConfig
from pipeline.errors import RowError
from pipeline.input.repeats import Repeats
from pipeline.input.shard_reader import ShardReader
from pipeline.input.shards import Chunk, list_shards, plan_shard
from pipeline.request.rows import Row, RowReader, records

ID = UUID("85797b42-4755-48f6-a4de-634c2fa26549")


def rows_of(path: Path, **config: Any) -> list[Row]:
    """The rows of a file, as a worker reads them."""
    plan = plan_shard(list_shards(str(path))[0])
    rows = RowReader(RequestConfig(**config), plan.columns, plan.shard.name)
    with ShardReader(plan, rows.columns) as reader:
        table = reader.read(whole := Chunk(plan.shard.name, 0, plan.rows))
    found, repeats = records(table, rows.columns), Repeats(plan).within(whole)
    return [rows.read(record, n, n in repeats) for n, record in enumerate(found)]


def prompts(path: Path, template: str) -> list[str]:
    rows = rows_of(path, template={"prompt": template})
    return [row.request.message if isinstance(row.request, RowError) else row.request.prompt for row in rows]  # type: ignore[union-attr]


def prompt(folder: Path, value: pa.Array, template: str = "{{ x }}") -> str:
    pq.write_table(pa.table({"x": value}), folder / "t.parquet")
    (found,) = prompts(folder / "t.parquet", template)
    return found


def stored(type_: Any, value: Any) -> pa.Array:
    return pa.ExtensionArray.from_storage(type_, pa.array([value], type_.storage_type))


def in_struct(value: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([value], ["y"])


def in_list(value: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays([0, 1], value)


def in_map(value: pa.Array) -> pa.Array:
    return pa.MapArray.from_arrays([0, 1], pa.array(["y"]), value)


PLACES: dict[str, tuple[Callable[[pa.Array], pa.Array], str]] = {
    "x": (lambda value: value, "{{ x }}{{ '' }}"),
    "struct": (in_struct, "{{ x.y }}"),
    "list": (in_list, "{{ x[0] }}"),
    "map": (in_map, "{{ x.y }}"),
    "list of structs": (lambda value: in_list(in_struct(value)), "{{ x[0].y }}"),
    "map of lists": (lambda value: in_map(in_list(value)), "{{ x.y[0] }}"),
    "struct in a row": (in_struct, "{{ row['x']['y'] }}"),
}
VALUES: dict[str, tuple[pa.Array, str]] = {
    "whole decimal": (pa.array([Decimal(5)], pa.decimal128(10, 0)), "5"),
    "decimal": (pa.array([Decimal("19.90")], pa.decimal128(10, 2)), "19.90"),
    "small decimal": (pa.array([Decimal("1e-10")], pa.decimal128(20, 10)), "0.0000000001"),
    "decimal of 20 digits": (pa.array([Decimal(12345678901234567890)]), "12345678901234567890"),
    "decimal of 38 digits": (
        pa.array([Decimal("-123456789012345678.90123456789012345678")]),
        "-123456789012345678.90123456789012345678",
    ),
    "float32": (pa.array([0.1], pa.float32()), "0.1"),
    "float16": (pa.array([0.1], pa.float16()), "0.1"),
    "nanoseconds": (
        pa.array([1704067200123456789], pa.int64()).cast(pa.timestamp("ns")),
        "2024-01-01 00:00:00.123456789",
    ),
    "whole nanoseconds": (
        pa.array([1704067200000000000], pa.int64()).cast(pa.timestamp("ns", "UTC")),
        "2024-01-01 00:00:00+00:00",
    ),
    "time of day": (pa.array([1], pa.int64()).cast(pa.time64("ns")), "00:00:00.000000001"),
    "duration": (pa.array([60 * 10**9 + 1], pa.int64()).cast(pa.duration("ns")), "0:01:00.000000001"),
    "uuid": (stored(pa.uuid(), ID.bytes), str(ID)),
    "json": (stored(pa.json_(), '{"a":  1.50}'), '{"a":  1.50}'),
    "bool8": (stored(pa.bool8(), 1), "True"),
    "tensor": (stored(pa.fixed_shape_tensor(pa.float32(), [1]), [0.1]), "[0.1]"),
    "opaque": (stored(pa.opaque(pa.string(), "point", "pg"), "(1,2)"), "(1,2)"),
    "category": (pa.array(["a"]).dictionary_encode(), "a"),
    "day": (pa.array([date(2024, 1, 1)]), "2024-01-01"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", VALUES)
def test_a_template_shows_a_value_as_its_file_has_it(tmp_path: Path, name: str, place: str) -> None:
    value, expected = VALUES[name]
    put, template = PLACES[place]
    assert prompt(tmp_path, put(value), template) == expected
    if place == "x" and name != "tensor":  # a list as a prompt is token ids
        assert prompt(tmp_path, value, "{{ x }}") == expected


@pytest.mark.parametrize("name", VALUES)
def test_a_row_as_json_keeps_its_values(tmp_path: Path, name: str) -> None:
    value, text = VALUES[name]
    found = prompt(tmp_path, value, "{{ row | tojson }}")
    is_json = name == "json" or name == "tensor" or "decimal" in name or "float" in name
    shown = {"json": '{"a": 1.50}', "bool8": "true"}.get(name, text if is_json else f'"{text}"')
    assert found == f'{{"x": {shown}}}'


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=5))
def test_any_decimal_keeps_its_digits_as_text_and_json_and_counts_as_a_number(value: Decimal) -> None:
    (record,) = records(pa.table({"x": pa.array([value], pa.decimal128(38, 5))}), ["x"])
    template = {"prompt": "{{ x }}|{{ x | tojson }}|{{ x - 1 < x }}"}
    found: Any = RowReader(RequestConfig(template=template), ("x",), "s").read(record, 0)
    text = format(value, "f")
    assert found.request.prompt.split("|")[:2] == [text, text]


def test_a_decimal_is_a_number_to_templates_and_requests(tmp_path: Path) -> None:
    price = pa.array([Decimal("19.90")])
    template = "{{ price * 1.5 }} {{ price == 19.9 }} {{ '%.1f' % price }} {{ price | round(1) }}"
    assert prompt(tmp_path, price, template.replace("price", "x")) == "29.849999999999998 True 19.9 19.9"
    assert prompt(tmp_path, pa.array([Decimal(3)]), "{% for i in range(x) %}.{% endfor %}") == "..."
    table = {"prompt": ["Hi"], "temperature": price.cast(pa.decimal128(5, 3)), "max_tokens": [Decimal(7)]}
    table["temperature"] = pa.array([Decimal("0.70")])
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    (row,) = rows_of(tmp_path / "t.parquet")
    assert (row.request.temperature, row.request.max_tokens) == (0.7, 7)  # type: ignore[union-attr]
    assert type(row.request.temperature) is float  # type: ignore[union-attr]


def test_numbers_of_json_lines_keep_their_digits_in_templates(tmp_path: Path) -> None:
    for number in ("5", "5.0", "19.90", "12345678901234567890", "0.12345678901234567890", "1e5", "-1.50"):
        (tmp_path / "x.jsonl").write_text(f'{{"x": {number}, "y": [{number}]}}\n')
        for template in ("{{ x }}", "{{ y[0] }}", "{{ x | tojson }}"):
            assert prompts(tmp_path / "x.jsonl", template) == [number]
    assert prompts(tmp_path / "x.jsonl", "{{ row | tojson }}") == ['{"x": -1.50, "y": [-1.50]}']


def test_json_in_templates_is_neither_sorted_nor_escaped(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"b": "it\'s <ä>", "a": {"c": [], "d": [1, null]}}\n')
    assert prompts(tmp_path / "x.jsonl", "{{ b | tojson }} {{ a | tojson }}") == [
        '"it\'s <ä>" {"c": [], "d": [1, null]}'
    ]
    (found,) = prompts(tmp_path / "x.jsonl", "{{ row | tojson(indent=2) }}")
    assert found == json.dumps(json.loads(found), indent=2, ensure_ascii=False)


def test_numbers_and_texts_name_rows_by_one_rule(tmp_path: Path) -> None:
    """3, 3.0 and "3" are one name; 19.90 is a name; and who bears a name first is who is answered."""
    lines = [json.dumps({"custom_id": n, "prompt": "Hi"}) for n in ("3", "2", "2.00", "19.90", "3.0")]
    numbers = "3.0 3 2.0 2.00 19.90 19.9 1e2".split()
    lines += [f'{{"custom_id": {n}, "prompt": "Hi"}}' for n in numbers]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    found = rows_of(tmp_path / "x.jsonl")
    names = ["3", "2", "2.00", "19.90", "3.0", "3", "3", "2", "2", "19.90", "19.9", "100"]
    assert [row.custom_id for row in found] == names
    refused = [n for n, row in enumerate(found) if isinstance(row.request, RowError)]
    assert refused == [n for n, name in enumerate(names) if name in names[:n]]


@pytest.mark.parametrize("column", ["custom_id", "id"])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([Decimal("19.90"), Decimal("5.00"), None]), ["19.90", "5", "t.parquet:2"]),
        (pa.array([3.0, 2.5, None]), ["3", "2.5", "t.parquet:2"]),
        (pa.array([12345678901234567890], pa.uint64()), ["12345678901234567890"]),
        (pa.array([Decimal(12345678901234567890)]), ["12345678901234567890"]),
        (stored(pa.uuid(), ID.bytes), [str(ID)]),
        (stored(pa.json_(), '"a"'), ["a"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([date(2024, 1, 1)]), ["2024-01-01"]),
    ],
)
def test_any_number_names_its_row(tmp_path: Path, column: str, values: pa.Array, names: list[str]) -> None:
    pq.write_table(pa.table({"prompt": ["Hi"] * len(values), column: values}), tmp_path / "t.parquet")
    found = rows_of(tmp_path / "t.parquet")
    assert [row.custom_id for row in found] == names
    assert not any(isinstance(row.request, RowError) for row in found)


def test_the_same_name_of_other_types_is_a_name_used_twice(tmp_path: Path) -> None:
    for values in (pa.array([Decimal("3.00"), Decimal("3.10"), Decimal("3.00")]), pa.array([3.0, 3.1, 3.0])):
        pq.write_table(pa.table({"prompt": ["Hi"] * 3, "custom_id": values}), tmp_path / "t.parquet")
        refused = [isinstance(row.request, RowError) for row in rows_of(tmp_path / "t.parquet")]
        assert refused == [False, False, True]


def test_what_nobody_needs_never_matters(tmp_path: Path) -> None:
    table = {
        "prompt": ["Hi", "Ho"],
        "nested": pa.concat_arrays([in_struct(stored(pa.json_(), "{}"))] * 2),
        "huge": pa.array([2**62, 0], pa.int64()).cast(pa.timestamp("us")),
        "picture": [b"\xff\xd8", b"x"],
        "a name": ["a", "b"],
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert [row.request.prompt for row in rows_of(tmp_path / "t.parquet")] == ["Hi", "Ho"]  # type: ignore[union-attr]
    for template in ("{{ row['a name'] }}", "{{ row.get('a name') }}", "{% set r = row %}{{ r['a name'] }}"):
        assert prompts(tmp_path / "t.parquet", template) == ["a", "b"]
    for template in ("{{ row['huge'] }}", "{{ huge }}", "{{ row }}", "{{ row | tojson }}", "{{ huge }}!"):
        first, second = prompts(tmp_path / "t.parquet", template)
        assert "can't be read" in first or "is not UTF-8" in first, template
        assert "can't be read" not in second
    assert "is not UTF-8" in prompts(tmp_path / "t.parquet", "{{ picture }}")[0]


def test_json_columns_are_what_they_say_in_a_request(tmp_path: Path) -> None:
    """As Hugging Face's datasets write messages whose content is of mixed types."""
    contents = ['"Hi"', '[{"type": "text", "text": "Hi"}]', "5", '{"a": 1}', "not JSON", '"it \\"is\\""']
    texts = ["Hi", "Hi", "5", '{"a": 1}', "not JSON", 'it "is"']
    content = pa.ExtensionArray.from_storage(pa.json_(), pa.array(contents))
    role = pa.array(["user"] * len(contents))
    turns = pa.StructArray.from_arrays([role, content], ["role", "content"])
    messages = pa.ListArray.from_arrays(range(len(contents) + 1), turns)
    parameters = '{"type": "object", "properties": {"n": {"type": "integer", "default": 5}}}'
    tool = {"type": "function", "function": {"name": "f", "parameters": json.loads(parameters)}}
    tools = pa.ExtensionArray.from_storage(pa.json_(), pa.array([json.dumps([tool])] * len(contents)))
    pq.write_table(pa.table({"messages": messages, "tools": tools}), tmp_path / "t.parquet")
    found = [row.request for row in rows_of(tmp_path / "t.parquet")]
    assert [request.messages[0].content for request in found] == texts  # type: ignore[union-attr]
    assert found[0].tools[0].function.parameters == json.loads(parameters)  # type: ignore[union-attr]


def test_a_string_of_a_json_column_is_its_text_in_templates(tmp_path: Path) -> None:
    values = ['"Hi \\"you\\""', "null", "5.0", '["a"]', ' {"a": 1}']
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(values))
    pq.write_table(pa.table({"x": column}), tmp_path / "t.parquet")
    assert prompts(tmp_path / "t.parquet", "{{ x }}!") == ['Hi "you"!', "!", "5.0!", '["a"]!', ' {"a": 1}!']
    shown = ['{"x": "Hi \\"you\\""}', '{"x": null}', '{"x": 5.0}', '{"x": ["a"]}', '{"x": {"a": 1}}']
    assert prompts(tmp_path / "t.parquet", "{{ row | tojson }}") == shown


def test_times_are_times_to_templates(tmp_path: Path) -> None:
    value = pa.array([1704067200123456789], pa.int64()).cast(pa.timestamp("ns", "+02:00"))
    assert prompt(tmp_path, value, "{{ x.year }} {{ x.strftime('%d.%m.') }}") == "2024 01.01."
    assert prompt(tmp_path, value, "{{ x.isoformat() }}") == "2024-01-01T02:00:00.123456789+02:00"


@given(st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)), st.integers(0, 999))
def test_any_nanosecond_is_kept(moment: datetime, nanos: int) -> None:
    micros = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    column = pa.array([micros * 1000 + nanos], pa.int64()).cast(pa.timestamp("ns"))
    (record,) = records(pa.table({"x": column}), ["x"])
    expected = f"{moment.isoformat(' ', 'microseconds')}{nanos:03}" if nanos else str(moment)
    assert str(record["x"]) == expected
