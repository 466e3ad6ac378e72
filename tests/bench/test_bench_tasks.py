"""The benchmark's workloads are what its documentation says: sizes, shares, and the same rows every time."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from bench import ROWS
from bench_contenders import LINEUPS, PEER, baselines
from bench_peers import requests
from bench_report import report
from bench_schemas import DESKS, LABEL, RECORD, agreement
from bench_tasks import Result, Task, make_task, without

from pipeline.request.schema import parse_request

TASKS = list(ROWS)
COUNT = 120
RECORDS = {"desk": "rooms", "urgency": "low", "room": 7, "reply": True, "summary": "a lamp"}


def user_texts(task: Task) -> list[str]:
    return [body["messages"][-1]["content"] for body in task.bodies]


def systems(task: Task) -> set[str]:
    return {body["messages"][0]["content"] for body in task.bodies}


def keys(task: Task) -> list[str]:
    return [json.dumps(body, sort_keys=True) for body in task.bodies]


@pytest.mark.parametrize("name", TASKS)
def test_every_row_is_a_request_that_nightherd_takes(name: str) -> None:
    task = make_task(name, COUNT)
    for body in task.bodies:
        parse_request(task.url, body)


@pytest.mark.parametrize("name", TASKS)
def test_a_part_has_the_same_rows_every_time(name: str) -> None:
    assert make_task(name, COUNT, 3) == make_task(name, COUNT, 3)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("count", [1, 7, COUNT])
def test_a_task_has_as_many_rows_as_asked_for(name: str, count: int) -> None:
    assert len(make_task(name, count).bodies) == count


@pytest.mark.parametrize("name", TASKS)
def test_no_part_has_more_than_chance_rows_of_another(name: str) -> None:
    first, second = (set(keys(make_task(name, COUNT, part))) for part in (1, 2))
    assert len(first & second) <= COUNT // 50


@pytest.mark.parametrize("name", [name for name in TASKS if name != "duplicates"])
def test_no_row_is_another_ones_duplicate(name: str) -> None:
    rows = keys(make_task(name, COUNT))
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "embeddings"])
def test_every_answer_is_greedy(name: str) -> None:
    assert {body["temperature"] for body in make_task(name, COUNT).bodies} == {0}


def test_half_of_the_duplicates_table_is_its_other_half() -> None:
    counts = Counter(keys(make_task("duplicates", COUNT)))
    assert set(counts.values()) == {2}


def test_duplicates_are_not_neighbours_by_rule() -> None:
    rows = keys(make_task("duplicates", COUNT))
    assert sum(a == b for a, b in pairwise(rows)) < COUNT // 10


@pytest.mark.parametrize("name", ["enum", "object"])
def test_notes_have_40_to_400_characters(name: str) -> None:
    lengths = sorted(len(text) for text in user_texts(make_task(name, 500)))
    assert lengths[0] >= 40 and lengths[-1] <= 400
    assert lengths[50] < 100 and lengths[-50] > 300


@pytest.mark.parametrize("name", ["labeling", "enum", "object", "duplicates"])
def test_the_instruction_is_shared_and_about_300_tokens_long(name: str) -> None:
    (instruction,) = systems(make_task(name, COUNT))
    # A token of it is 4.1 characters.
    assert 1050 <= len(instruction) <= 1350


@pytest.mark.parametrize(("name", "schema"), [("enum", LABEL), ("object", RECORD)])
def test_a_schema_is_sent_as_openai_takes_it(name: str, schema: dict[str, Any]) -> None:
    for body in make_task(name, 8).bodies:
        form = body["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["strict"] is True
        assert form["json_schema"]["schema"] == schema


def test_the_label_is_one_of_the_desks() -> None:
    assert LABEL["properties"] == {"label": {"enum": DESKS}}


def test_the_record_has_two_enums_a_bounded_integer_a_boolean_and_a_short_string() -> None:
    fields = RECORD["properties"]
    assert sum("enum" in field for field in fields.values()) == 2
    assert {"type": "integer", "minimum": 1, "maximum": 999} in fields.values()
    assert {"type": "boolean"} in fields.values()
    assert {"type": "string", "maxLength": 40} in fields.values()
    assert RECORD["required"] == list(fields) and len(fields) == 5


def test_four_questions_are_asked_of_each_document_in_no_order() -> None:
    documents = [text.rpartition("\n\n")[0] for text in user_texts(make_task("documents", COUNT))]
    assert set(Counter(documents).values()) == {4}
    assert sum(a == b for a, b in pairwise(documents)) < COUNT // 10


def test_documents_are_about_600_tokens_long_and_begin_the_message() -> None:
    for body in make_task("documents", COUNT).bodies:
        (message,) = body["messages"]
        document, _, question = message["content"].rpartition("\n\n")
        # A token of this text is 3.8 characters.
        assert 2150 <= len(document) <= 2500
        assert "?" in question and len(question) < 80
        assert body["max_tokens"] == 8


@pytest.mark.parametrize("name", TASKS)
def test_a_row_fits_into_its_context(name: str) -> None:
    task = make_task(name, COUNT)
    for body in task.bodies:
        texts = [message["content"] for message in body.get("messages", [])]
        characters = len(" ".join(texts) or body.get("prompt") or body["input"])
        # Tokens of 3.8 characters, and some dozens of a chat's template.
        assert characters / 3.8 + 60 + body.get("max_tokens", 0) <= task.context


def test_free_rows_are_as_long_and_differ_from_constrained_ones_by_the_constraint_alone() -> None:
    task = make_task("constrained", COUNT)
    for body, free in zip(task.bodies, task.free().bodies, strict=True):
        assert free == without(body, "guided_regex") | {"ignore_eos": True}


def test_a_constrained_answer_may_be_nearly_any_text_but_never_end() -> None:
    (regex,) = {body["guided_regex"] for body in make_task("constrained", COUNT).bodies}
    assert re.fullmatch(regex, "There were 3 lamps: one's was red, the others (if any) blue.~")
    assert not re.fullmatch(regex, "There were 3 lamps.")


def test_a_server_gets_a_grammar_for_the_regular_expression() -> None:
    task = make_task("constrained", 4)
    for body, sent in zip(task.bodies, requests(task), strict=True):
        assert sent == without(body, "guided_regex") | {"grammar": task.grammar}


@pytest.mark.parametrize("name", ["enum", "object", "documents", "duplicates", "labeling"])
def test_a_server_gets_the_same_chats(name: str) -> None:
    task = make_task(name, 8)
    assert requests(task) == task.bodies


@pytest.mark.parametrize(
    ("name", "text", "share"),
    [
        ("enum", '{"label": "money"}', 1.0),
        ("enum", '{"label":\n "money"}', 1.0),
        ("enum", '{"label": "police"}', 0.0),
        ("enum", '{"label": "money", "why": ""}', 0.0),
        ("enum", '{"label": "mon', 0.0),
        ("object", json.dumps(RECORDS), 1.0),
        ("object", json.dumps(RECORDS | {"room": 1000}), 0.0),
        ("object", json.dumps(RECORDS | {"summary": "x" * 41}), 0.0),
        ("constrained", "there was", None),
        ("labeling", "money", None),
    ],
)
def test_agreement_is_the_share_of_answers_that_keep_to_their_schema(
    name: str, text: str, share: float | None
) -> None:
    body = make_task(name, 1).bodies[0]
    assert agreement(body, [text]) == share


@pytest.mark.parametrize("name", ["enum", "object"])
def test_a_half_that_is_no_json_halves_the_agreement(name: str) -> None:
    valid = {"enum": '{"label": "lost"}', "object": json.dumps(RECORDS)}[name]
    assert agreement(make_task(name, 1).bodies[0], [valid, "I think it is lost."]) == 0.5


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_compared_with_llama_server(name: str) -> None:
    assert name in LINEUPS
    assert PEER in baselines(name)


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    task = make_task("enum", 10)
    # The second round was slow for both, the third for one of them.
    seconds = {"nightherd": (1.0, 5.0, 8.0), PEER: (2.0, 10.0, 2.0)}
    rounds = [{name: Result(seconds[name][at], 10, 0, 0, None, 1.0) for name in seconds} for at in range(3)]
    figures = report(task, rounds, [PEER])
    assert figures["nightherd"]["ratios"] == {PEER: 2.0}
    assert figures["nightherd"]["agreement"] == 1.0
    assert "2.00" in capsys.readouterr().out
