"""The column `parsed`: typed where a job's rows share a schema, null where there is no whole answer."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.answer.answers import Answers
from pipeline.answer.parsed import Expected
from pipeline.answer.shared_schema import shared_schema
from pipeline.config import JobConfig
from pipeline.engine.sequence import Generation
from pipeline.errors import ConfigError, RowError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, ShardPlan, list_shards, plan_shard
from pipeline.output.amendment import Amendment
from pipeline.output.export import export
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import count
from pipeline.output.manifest import Manifest
from pipeline.output.verify import verify
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "mood": {"enum": ["glad", "sad", "calm"]},
        "born": {"type": "string", "format": "date"},
        "scores": {"type": "array", "items": {"type": "number"}},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
        "extra": {},
    },
    "required": ["name"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
TOOL = {"type": "function", "function": {"name": "note", "parameters": PERSON}}
ANN = {"name": "Ann", "mood": "glad", "born": "1990-02-03", "scores": [1, 2.5], "tags": ["y"], "extra": [1]}
TYPED_ANN = ANN | {"extra": "[1]", "scores": [1.0, 2.5]}


def chat(**fields: Any) -> Any:
    return parse_request("/v1/chat/completions", {"messages": [{"role": "user", "content": "?"}], **fields})


def answered(request: Any, *texts: str | Generation) -> Any:
    """The row's value in the column."""
    expected = Expected.of(request)
    assert expected is not None
    answers = Answers("m", "0", pa.schema([]), parsed=expected)
    choices = [text if isinstance(text, Generation) else said(text) for text in texts]
    table = answers.table([answers.chat(Row("r", request), choices, 1)], pa.table({"_": [0]}))
    assert table.schema.field("parsed").type == expected.column_type
    assert table.column_names.index("parsed") < table.column_names.index("attempts")
    return table.column("parsed")[0].as_py()


def said(text: str, **fields: Any) -> Generation:
    return Generation(text, (1,), fields.pop("finish_reason", "stop"), 1, 0, **fields)


def test_answers_are_values_of_their_schema():
    assert answered(chat(response_format=FORMAT), json.dumps(ANN)) == TYPED_ANN
    assert answered(chat(response_format=FORMAT), '{"name": "Bo"}')["mood"] is None


def test_a_choice_is_one_of_a_dictionary():
    assert answered(chat(guided_choice=["good", "bad"]), "bad") == "bad"
    assert answered(chat(guided_choice=["good", "bad"]), "ba") is None


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "note"}}])
def test_a_call_is_its_arguments(choice):
    call = json.dumps({"name": "note", "arguments": ANN})
    assert answered(chat(tools=[TOOL], tool_choice=choice), call) == TYPED_ANN


def test_text_beside_the_one_function_is_no_call():
    assert answered(chat(tools=[TOOL]), "I would rather talk.") is None


def test_several_choices_are_a_list():
    found = answered(chat(guided_choice=["good", "bad"], n=3), "bad", "good", said("go", complete=False))
    assert found == ["bad", "good", None]


@pytest.mark.parametrize(
    "answer",
    [
        said(json.dumps(ANN), complete=False),
        said(json.dumps(ANN), finish_reason="length"),
        said('{"name": "An'),
        said("null"),
        said('{"name": NaN}'),
        said("[" * 100_000),
        said('{"name": 1}'),
    ],
)
def test_what_is_not_a_whole_answer_is_null(answer):
    assert answered(chat(response_format=FORMAT), answer) is None


def test_a_row_that_asks_for_something_else_is_null():
    answers = Answers("m", "0", pa.schema([]), parsed=Expected.of(chat(guided_choice=["good", "bad"])))
    other = answers.chat(Row("r", chat(guided_choice=["good", "worse"])), [said("good")], 1)
    assert other["parsed"] is None
    assert "parsed" not in Answers("m", "0", pa.schema([])).schema.names


# Which jobs have the column.


def job_over(tmp_path: Path, tables: list[pa.Table], **config: Any) -> tuple[JobConfig, list[ShardPlan]]:
    (tmp_path / "in").mkdir(exist_ok=True)
    for number, table in enumerate(tables):
        pq.write_table(table, tmp_path / "in" / f"{number:03}.parquet")
    output = {"path": str(tmp_path / "out"), **config.pop("output", {})}
    tree = {"model": {"path": "m"}, "input": {"path": str(tmp_path / "in")}, "output": output, **config}
    shards = list_shards(str(tmp_path / "in"))
    return JobConfig.model_validate(tree), [plan_shard(shard) for shard in shards]


def asked(**columns: Any) -> pa.Table:
    rows = len(next(iter(columns.values()), ["?"]))
    return pa.table({"prompt": ["?"] * rows, **columns})


def test_the_schema_may_stand_in_the_job(tmp_path):
    defaults = {"guided_choice": ["good", "bad"]}
    found = shared_schema(*job_over(tmp_path, [asked()], request={"defaults": defaults}))
    assert found is not None
    assert (found.form, found.column_type) == ("choice", pa.dictionary(pa.int32(), pa.string()))


def test_the_schema_may_stand_in_every_row(tmp_path):
    body = json.dumps({"messages": [{"role": "user", "content": "?"}], "response_format": FORMAT})
    lines = pa.table(
        {
            "custom_id": list("abc"),
            "method": ["POST"] * 3,
            "url": ["/v1/chat/completions"] * 3,
            "body": [body] * 3,
        }
    )
    found = shared_schema(*job_over(tmp_path, [lines, lines]))
    assert found == Expected.of(chat(response_format=FORMAT))
    assert Expected.from_json(found.to_json()) == found


def test_rows_that_differ_share_none(tmp_path):
    mixed = asked(guided_choice=[["a"], ["b"]])
    assert shared_schema(*job_over(tmp_path, [mixed])) is None
    job, plans = job_over(tmp_path, [mixed], output={"parsed": True})
    with pytest.raises(ConfigError, match=r"output\.parsed: .* no schema in common"):
        shared_schema(job, plans)


def test_shards_that_differ_share_none(tmp_path):
    tables = [asked(guided_choice=[["a"]])] * 20 + [asked(guided_choice=[["b"]])] * 20
    assert shared_schema(*job_over(tmp_path, tables)) is None


def test_rows_that_are_wrong_have_no_say(tmp_path):
    found = shared_schema(*job_over(tmp_path, [asked(guided_choice=[["a"], []], temperature=[0.0, 9.0])]))
    assert found == Expected("choice", '{"enum": ["a"]}')


def test_a_schema_without_a_type_has_no_column(tmp_path):
    request = {"defaults": {"response_format": {"type": "json_object"}}}
    assert shared_schema(*job_over(tmp_path, [asked()], request=request)) is None
    job, plans = job_over(tmp_path, [asked()], request=request, output={"parsed": True})
    with pytest.raises(ConfigError, match=r"no type in Arrow: it names no properties; the column text"):
        shared_schema(job, plans)


def test_it_can_be_switched_off_and_gives_way_to_a_kept_column(tmp_path):
    request = {"defaults": {"guided_choice": ["good", "bad"]}}
    for output in ({"parsed": False}, {"keep": ["parsed"]}):
        job, plans = job_over(tmp_path, [asked(parsed=["x"])], request=request, output=output)
        assert shared_schema(job, plans) is None


def test_embeddings_and_empty_inputs_have_none(tmp_path):
    assert shared_schema(*job_over(tmp_path, [pa.table({"input": ["?"]})], output={"parsed": "auto"})) is None
    empty = asked().slice(0, 0)
    assert shared_schema(*job_over(tmp_path, [empty], output={"parsed": True})) is None


# What becomes of the column in an output.


class Output:
    """A finished output of 5,000 rows of one shard, put together from chunks, with a few errors."""

    def __init__(self, url: str, rows: int = 5000) -> None:
        self.url, self.request = url, chat(response_format=FORMAT)
        config = JobConfig.model_validate(
            {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": url}}
        )
        self.plan = ShardPlan(shard_of("a.parquet"), rows, "0", ("messages",))
        expected = Expected.of(self.request)
        assert expected is not None
        prints = Fingerprint.of(config, "ab" * 32, [self.plan], expected.to_json())
        self.answers = Answers("m", prints.digest, pa.schema([]), parsed=expected)
        self.manifest = Manifest(Storage.at(url), prints)
        self.manifest.begin()
        for start in range(0, rows, 700):
            self.commit(Chunk("a.parquet", start, min(start + 700, rows)))
        self.manifest.commit_shard(self.plan)
        self.manifest.finish([self.plan])

    def commit(self, chunk: Chunk, retry: int = 0) -> None:
        records = [self.record(number, retry) for number in range(chunk.start, chunk.stop)]
        table = self.answers.table(records, pa.table({"_": [0] * chunk.rows}))
        self.manifest.commit_chunk(chunk, table, count(table), retry)

    def record(self, number: int, retry: int) -> Any:
        if number % 1000 == 3 and not retry:
            return self.answers.error(f"{number}", RowError("server_error", "why"), 1)
        return self.answers.chat(Row(f"{number}", self.request), [said(json.dumps(value_of(number)))], 1)


def shard_of(name: str) -> Any:
    from pipeline.input.shards import Shard

    return Shard(name, f"/nowhere/{name}", 1, "")


def value_of(number: int) -> dict[str, Any]:
    moods = ["glad", "sad", "calm"] if number % 2 else ["calm", "sad", "glad"]
    return ANN | {"name": f"n{number}", "mood": moods[number % 3], "tags": ["x", "y"][: number % 3]}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return Output(str(tmp_path_factory.mktemp("parsed") / "out"))


def parsed_of(output: Output) -> list[Any]:
    return pq.read_table(f"{output.url}/responses").column("parsed").to_pylist()


def expected_values(retried: bool = False) -> list[Any]:
    return [
        None if n % 1000 == 3 and not retried else value_of(n) | {"extra": "[1]", "scores": [1.0, 2.5]}
        for n in range(5000)
    ]


def test_chunks_and_row_groups_keep_the_values(output):
    assert parsed_of(output) == expected_values()


def test_an_output_with_the_column_is_verified_and_exported(output, tmp_path):
    assert verify(output.url).problems == []
    export(output.url, str(tmp_path / "out.jsonl"))
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert json.loads(line["response"]["body"]["choices"][0]["message"]["content"]) == value_of(0)
    assert "parsed" not in line["response"]["body"]


def test_other_tools_read_it(output):
    files = f"{output.url}/responses/*.parquet"
    told = duckdb.sql(
        f"SELECT parsed.mood AS mood, count(*), sum(parsed.scores[2]), min(CAST(parsed.born AS DATE)) "
        f"FROM '{files}' WHERE parsed IS NOT NULL GROUP BY mood ORDER BY mood"
    ).fetchall()
    moods = [value["mood"] for value in expected_values() if value]
    counts = {mood: moods.count(mood) for mood in sorted(set(moods))}
    assert [(mood, rows, total) for mood, rows, total, _ in told] == [
        (m, n, 2.5 * n) for m, n in counts.items()
    ]
    assert str(told[0][3]) == "1990-02-03"
    frame = pl.read_parquet(files).unnest("parsed").filter(pl.col("mood").is_not_null())
    assert dict(frame.group_by(pl.col("mood").cast(str)).len().iter_rows()) == counts
    table = pd.read_parquet(f"{output.url}/responses", columns=["custom_id", "parsed"])
    assert table["parsed"][1]["mood"] == value_of(1)["mood"]
    assert table["parsed"][3] is None


def test_a_retry_puts_new_values_in_place():
    output = Output(f"memory://{uuid.uuid4()}")
    retry = output.manifest.reopen()
    amendment = Amendment(output.manifest, retry)
    for chunk in amendment.failed(output.plan):
        output.commit(chunk, retry)
    amendment.commit(output.plan)
    output.manifest.finish([output.plan])
    assert verify(output.url).problems == []
    with output.manifest.output.open_input("responses/a.parquet") as file:
        assert pq.read_table(file).column("parsed").to_pylist() == expected_values(retried=True)


def test_a_column_of_another_schema_is_another_job():
    shared = Expected.of(chat(guided_choice=["a"]))
    other = Expected.of(chat(guided_choice=["b"]))
    assert shared is not None and other is not None
    config = JobConfig.model_validate(
        {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": "o"}}
    )
    one, two = (Fingerprint.of(config, "ab" * 32, [], found.to_json()) for found in (shared, other))
    assert one.parsed == shared.to_json()
    assert [line.partition(":")[0] for line in one.differences(two)] == ["output.parsed"]
    assert Fingerprint.of(config, "ab" * 32, []).parsed is None
