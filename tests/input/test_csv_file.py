"""CSV and TSV: every value is the text that stands in the file, rows are found anywhere, faults are named."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import JobConfig, RequestConfig
from pipeline.errors import ConfigError, InputError, RowError
from pipeline.input.repeats import Repeats
from pipeline.input.shard_reader import ShardReader, row_reader
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.job.worker import check_input
from pipeline.request.rows import Row, records

CELLS = st.text(st.sampled_from('ab,\t"\n\r é0 '), max_size=6)


def plan_of(path: Path, data: bytes | str) -> ShardPlan:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return plan_shard(list_shards(str(path))[0])


def table_of(plan: ShardPlan) -> dict[str, list[Any]]:
    with ShardReader(plan) as reader:
        table = reader.read(Chunk(plan.shard.name, 0, plan.rows))
    found: dict[str, list[Any]] = table.to_pydict()
    return found


def rows_of(plan: ShardPlan, **config: Any) -> list[Row]:
    reader = row_reader(RequestConfig(**config), plan)
    whole = Chunk(plan.shard.name, 0, plan.rows)
    with ShardReader(plan, reader.columns) as shard:
        found = records(shard.read(whole), reader.columns)
    repeats = Repeats(plan).within(whole)
    return [reader.read(record, n, n in repeats) for n, record in enumerate(found)]


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=25),
    kind=st.sampled_from(["csv", "tsv", "csv.gz"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    bom=st.sampled_from(["", "\ufeff"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    order=st.randoms(use_true_random=False),
)
def test_what_a_writer_wrote_is_read_from_anywhere_in_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, ...]],
    kind: str,
    ending: str,
    bom: str,
    quoting: Any,
    order: Any,
) -> None:
    if quoting == csv.QUOTE_MINIMAL:  # Python's writer doesn't quote a \r by itself.
        rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    text = io.StringIO()
    delimiter = "\t" if kind == "tsv" else ","
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerows([("x", "y,\t", 'z"'), *rows])
    data = (bom + text.getvalue()).encode()
    path = tmp_path_factory.mktemp("d") / f"a.{kind}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.input.csv_file.MARK_EVERY", 10)
        plan = plan_of(path, gzip.compress(data) if kind.endswith("gz") else data)
    assert (plan.rows, plan.columns) == (len(rows), ("x", "y,\t", 'z"'))
    places = [Chunk(path.name, n, min(n + 3, len(rows))) for n in range(len(rows))]
    order.shuffle(places)
    with ShardReader(plan) as reader:
        for place in places:
            found = [tuple(row.values()) for row in reader.read(place).to_pylist()]
            assert found == rows[place.start : place.stop]


def test_no_value_is_guessed_at(tmp_path: Path) -> None:
    data = "id,code,when,n,empty,null\n7,007,2024-01-02,1e3,,NULL\n"
    plan = plan_of(tmp_path / "a.csv", data)
    assert {name: value for name, (value,) in table_of(plan).items()} == {
        "id": "7",
        "code": "007",
        "when": "2024-01-02",
        "n": "1e3",
        "empty": "",
        "null": "NULL",
    }
    template = {"prompt": "{{ code }}|{{ when }}|{{ n }}|{{ empty }}|{{ null }}"}
    (row,) = rows_of(plan, template=template)
    assert (row.custom_id, row.request.prompt) == ("7", "007|2024-01-02|1e3||NULL")  # type: ignore[union-attr]


def test_a_requests_fields_are_what_their_texts_say(tmp_path: Path) -> None:
    data = (
        "custom_id,prompt,max_tokens,temperature,stop,guided_choice\n"
        '007,12,16,0.5,END,"[""a"", ""b""]"\n'
        "008,true,,,5,\n"
        "009,x,many,,,\n"
    )
    first, second, third = rows_of(plan_of(tmp_path / "a.csv", data))
    request: Any = first.request
    assert (first.custom_id, request.prompt, request.max_tokens) == ("007", "12", 16)
    assert (request.temperature, list(request.guided_choice)) == (0.5, ["a", "b"])
    assert second.custom_id == "008" and second.request.prompt == "true"  # type: ignore[union-attr]
    assert isinstance(third.request, RowError) and "max_tokens" in third.request.message


def test_batch_lines_and_chats_may_be_csv(tmp_path: Path) -> None:
    body = '{""messages"": [{""role"": ""user"", ""content"": ""Hi""}]}'
    batch = f'custom_id,url,body\na,/v1/chat/completions,"{body}"\n'
    chat = 'messages\n"[{""role"": ""user"", ""content"": ""Hi""}]"\n'
    for number, data in enumerate((batch, chat)):
        (row,) = rows_of(plan_of(tmp_path / f"{number}.csv", data))
        assert row.request.messages[0].content == "Hi"  # type: ignore[union-attr]


def test_repeated_names_are_refused_as_they_stand(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "a.csv", "custom_id,prompt\n7,a\n07,b\n7,c\n,d\n,e\n")
    assert [isinstance(row.request, RowError) for row in rows_of(plan)] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("", r"it is empty: the first line must name the columns"),
        ("\n\n", r"it is empty"),
        ("a,b\n1,2\n1,2,3\n", r"line 3: 3 fields, but the header has 2"),
        ('a,b\n"1\n\n",2\n1\n', r"line 5: 1 fields, but the header has 2"),
        ('a,b\n1,2\n3,"4\n5,6\n', r"line 3: unexpected end of data"),
        ('a,b\n1,"2"3\n', r"line 2: ',' expected after '\"'"),
        ("a,b\r1,2\r", r"line 1: new-line character seen in unquoted field"),
        ("a,a\n1,2\n", r"two columns have the same name"),
        ("a,b\n1,2\nä,3\n".encode("latin-1"), r"line 3 is not UTF-8: .* at its byte 0; convert the file"),
        ("a,b\n1,2\n".encode("utf-16"), r"line 1 is not UTF-8"),
    ],
)
def test_a_file_that_is_broken_is_named_with_its_line(
    tmp_path: Path, data: bytes | str, complaint: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.csv: not a readable CSV file \({complaint}"):
        plan_of(tmp_path / "a.csv", data)


def test_blank_lines_are_no_rows_and_long_fields_are_read(tmp_path: Path) -> None:
    long = "x" * 3_000_000
    plan = plan_of(tmp_path / "a.csv.bz2", bz2.compress(f"a\n\n{long}\n\n\r\nb".encode()))
    assert table_of(plan) == {"a": [long, "b"]}


def test_only_the_columns_asked_for_are_made(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "a.tsv", "a\tb\tc\n1\t2\t3\n")
    for asked, names in ((["c", "a"], ["a", "c"]), (["gone"], ["a"]), (None, ["a", "b", "c"])):
        with ShardReader(plan, asked) as reader:
            assert reader.read(Chunk("a.tsv", 0, 1)).column_names == names


def test_columns_are_checked_before_any_work(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "a.csv", "text;label\nHi;x\n")
    tree = {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": "o"}}
    with pytest.raises(InputError, match="text;label"):
        check_input(JobConfig.model_validate(tree), plan)
    with pytest.raises((InputError, ConfigError), match="label"):
        check_input(
            JobConfig.model_validate(tree | {"request": {"template": {"prompt": "{{ label }}"}}}), plan
        )
