"""`nightherd diff`: what changed between two runs is what their rows say, however these are ordered."""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import ConfigError, OutputError, RowError
from pipeline.report.diff import as_json, as_text, diff
from pipeline.report.diff_page import marked, write_diff
from pipeline.report.pairing import Pairing
from tests.answered import Answered
from tests.report.browser import Browser

LABELS = ["art", "law", "war"]


def url() -> str:
    return f"memory://{uuid.uuid4()}"


def job(rows: list[Any], place: str = "", shard: str = "a.parquet", **more: Any) -> Answered:
    return Answered(place or url(), {shard: [(row, {}) for row in rows]}, **more).finish()


names = st.lists(st.sampled_from("abcdefgh"), max_size=25)
sizes = st.lists(st.integers(1, 5), min_size=30, max_size=30)


def cut_up(ids: list[str], parts: list[int]) -> list[pa.Table]:
    table, found, at = pa.table({"custom_id": pa.array(ids, pa.string()), "n": range(len(ids))}), [], 0
    for part in parts:
        if at < len(ids):
            found.append(table.slice(at, part))
            at += part
    return found


@given(names, names, sizes, sizes)
@example(list("ab"), list("ba"), [1] * 30, [2] * 30)
@example(list("aabb"), list("abab"), [4] * 30, [1] * 30)
def test_rows_are_matched_by_name_in_any_order_and_any_pieces(left, right, some, others):
    pairing, found = Pairing(), Counter[str]()
    used: list[set[int]] = [set(), set()]
    for one, other in pairing.pairs(cut_up(left, some), cut_up(right, others)):
        assert one.column("custom_id").to_pylist() == other.column("custom_id").to_pylist()
        found.update(one.column("custom_id").to_pylist())
        for side, table in zip(used, (one, other), strict=True):
            assert side.isdisjoint(table.column("n").to_pylist())
            side.update(table.column("n").to_pylist())
    assert found == Counter(left) & Counter(right)
    assert pairing.first_only == len(left) - found.total()
    assert pairing.second_only == len(right) - found.total()


def test_rows_in_the_same_order_are_never_held():
    tables = [pa.table({"custom_id": [f"{n}-{i}" for i in range(9)]}) for n in range(50)]
    read = []

    def reading():
        for number, table in enumerate(tables):
            read.append(number)
            yield table

    for place, _ in enumerate(Pairing().pairs(reading(), iter(tables))):
        assert len(read) <= place + 2


answers = st.one_of(
    st.sampled_from(LABELS),
    st.just(RowError("server_error", "why")),
    st.just(RowError("invalid_request", "no")),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(answers, answers), max_size=30))
def test_every_row_is_counted_once(pairs):
    found = diff(job([one for one, _ in pairs]).url, job([other for _, other in pairs]).url).found
    both = [(a, b) for a, b in pairs if isinstance(a, str) and isinstance(b, str)]
    assert found.same == sum(a == b for a, b in both)
    assert found.changed == sum(a != b for a, b in both)
    assert found.lost == sum(isinstance(a, str) and not isinstance(b, str) for a, b in pairs)
    assert found.won == sum(isinstance(b, str) and not isinstance(a, str) for a, b in pairs)
    assert found.rows == len(pairs)
    assert found.before.rows == found.after.rows == len(pairs)
    for side in (0, 1):
        assert found.errors[side] == Counter(p[side].code for p in pairs if isinstance(p[side], RowError))
    if found.labels:
        assert found.labels == Counter(both)
        assert {(a, b): n for a, b, n in found.label_changes} == Counter((a, b) for a, b in both if a != b)


def test_an_output_is_the_same_as_itself():
    one = job(["art", "law", RowError("server_error", "why")]).url
    result = diff(one, one)
    assert result.found.agreement == 1.0
    assert (result.settings, result.found.examples, result.found.label_changes) == ([], [], [])
    assert "the jobs have the same settings, model and input" in as_text(result)


def test_what_differs_in_the_jobs_is_named():
    before = job(["a b"], request={"defaults": {"temperature": 0}})
    after = job(["a b"], request={"defaults": {"temperature": 1, "seed": 3}})
    result = diff(before.url, after.url)
    assert "request.defaults.temperature: 1, but was 0" in result.settings
    assert "request.defaults.seed: 3, but was absent" in as_text(result)


def test_free_texts_are_compared_and_no_labels():
    result = diff(job(["one cat", "two"]).url, job(["one dog", "two"]).url)
    assert (result.found.same, result.found.changed, result.found.labels) == (1, 1, Counter())
    assert "a.parquet:0: one cat -> one dog" in as_text(result)


def test_probabilities_go_with_the_examples():
    def labelled(share: float) -> dict[str, Any]:
        labels = {"art": math.log(share), "law": math.log(1 - share)}
        return {"text": "art" if share > 0.5 else "law", "labels": labels}

    before, after = (
        job([labelled(0.9)] * 4),
        job([labelled(0.2), labelled(0.7), labelled(0.9), labelled(0.9)]),
    )
    result = diff(before.url, after.url)
    (change,) = result.found.examples
    assert change.probability == pytest.approx((0.9, 0.8))
    assert "art (0.90) -> law (0.80)" in as_text(result)
    assert "art -> law: 1 row\n" in as_text(result)


def test_rows_and_shards_that_only_one_has_are_told():
    before = Answered(url(), {"a.parquet": [("x", {})] * 3, "b.parquet": [("x", {})]}).finish()
    after = Answered(url(), {"a.parquet": [("x", {})] * 2, "c.parquet": [("x", {})]}).finish()
    told = as_json(diff(before.url, after.url))
    assert (told["rows"], told["rows_only_in"]) == (2, [1, 0])
    assert told["shards_only_in"] == [["b.parquet"], ["c.parquet"]]


def test_vectors_are_compared_by_their_angle():
    before = job([np.eye(4)[0], np.eye(4)[1], np.eye(4)[2]], kind="embed")
    after = job([np.eye(4)[0] * 2, np.array([0, 1, 1, 0]), np.eye(8)[0]], kind="embed")
    found = diff(before.url, after.url).found
    assert (found.same, found.changed, found.cosines.count) == (1, 2, 2)
    assert found.cosines.least == pytest.approx(math.sqrt(0.5))


def test_what_cannot_be_compared_is_refused(tmp_path):
    texts, vectors = job(["x"]), job([np.ones(3)], kind="embed")
    with pytest.raises(ConfigError, match=r"holds texts and .* vectors"):
        diff(texts.url, vectors.url)
    with pytest.raises(
        ConfigError, match=r"no shard in common: a.parquet in the one, b.parquet in the other"
    ):
        diff(texts.url, job(["x"], shard="b.parquet").url)
    with pytest.raises(OutputError, match="no job has begun"):
        diff(texts.url, str(tmp_path))


def test_an_unfinished_job_is_compared_as_far_as_it_is():
    shards = {"a.parquet": [("x", {})] * 3, "b.parquet": [("x", {})]}
    before, after = Answered(url(), shards).finish(), Answered(url(), shards).commit("b.parquet")
    result = diff(before.url, after.url)
    assert (result.found.rows, result.rows_before) == (1, 3)
    assert f"{after.url} is not finished" in as_text(result)


def test_the_command_prints_text_or_json_and_writes_a_page(tmp_path):
    before, after = job(["art", "law"] * 3).url, job(["art", "war"] * 3).url
    page = tmp_path / "diff.html"
    done = CliRunner().invoke(app, ["diff", before, after, "--html", str(page)])
    assert (done.exit_code, done.stderr) == (0, f"report: {page}\n")
    assert "answers: 3 the same (50.0%), 3 changed" in done.stdout
    told = json.loads(CliRunner().invoke(app, ["diff", before, after, "--json"]).stdout)
    assert told["labels"] == [{"from": "law", "to": "war", "rows": 3}]
    assert told["agreement"] == 0.5
    assert CliRunner().invoke(app, ["diff", before]).exit_code == 2


def test_a_browser_shows_the_page(tmp_path):
    before = job(["art", "a cat sat", "law", "law"] * 4, name="<i>first</i>")
    after = job(["art", "a dog <b>sat", "war", RowError("server_error", "why")] * 4, name="second")
    page = Path(write_diff(diff(before.url, after.url), str(tmp_path / "diff.html")))
    text, found = Browser.found().probe(page, tmp_path)
    probe = json.loads(found)
    assert (probe["loaded"], probe["wide"], len(probe["charts"])) == ([], [], 1)
    for words in (
        "What changed",
        "<i>first</i>",
        "33.3%",
        "Labels that changed",
        "a dog <b>sat",
        "server_error",
    ):
        assert words in text


@given(st.text(alphabet="ab <&", max_size=12), st.text(alphabet="ab <&", max_size=12))
def test_marked_texts_are_the_texts(before, after):
    for text, shown in zip((before, after), marked(before, after), strict=True):
        for tag in ("<del>", "</del>", "<ins>", "</ins>"):
            shown = shown.replace(tag, "")
        assert shown.unescape() == text
