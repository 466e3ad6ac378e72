"""`/v1/batches` with the `openai` package, on the fake model."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from pipeline.config import ServeConfig
from pipeline.errors import ConfigError
from pipeline.serve.batches.keeper import OF_ONE_OWNER
from pipeline.serve.door import Door
from pipeline.serve.keys import Keys
from tests.serve.batching import CHATS, Clock, batching, chats, client, ended, jsonl, line, results, submitted
from tests.serve.live import live_embeddings, until


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with batching(tmp_path_factory.mktemp("data")) as made:
        yield made


@pytest.fixture(scope="module")
def ai(made):
    with client(made) as made_client:
        yield made_client


def test_a_batch_is_answered_as_its_requests_are(ai):
    """And its errors are lines of the error file."""
    lines = [
        *chats(70),
        line("hot", temperature=9),
        line("long", messages=[{"role": "user", "content": "x" * 9000}]),
    ]
    asked = submitted(ai, jsonl(lines), metadata={"night": "1"})
    assert (asked.status, asked.object, asked.endpoint) == ("validating", "batch", CHATS)
    assert asked.request_counts.total == 0 and asked.expires_at - asked.created_at == 24 * 3600
    batch = ended(ai, asked.id)
    assert batch.status == "completed" and batch.errors is None and batch.model == "org/fake"
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (72, 70, 2)
    assert batch.metadata == {"night": "1"}
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.failed_at is batch.expired_at is batch.cancelled_at is batch.cancelling_at is None
    good, bad = results(ai, batch.output_file_id), results(ai, batch.error_file_id)
    assert good.keys() == {f"row-{number}" for number in range(70)}
    assert {name: found["response"]["status_code"] for name, found in bad.items()} == {
        "hot": 400,
        "long": 400,
    }
    assert bad["hot"]["error"] is None
    assert bad["hot"]["response"]["body"]["error"]["param"] == "temperature"
    assert bad["hot"]["response"]["request_id"].startswith("req_")
    one = good["row-7"]["response"]
    assert one["status_code"] == 200 and one["body"]["object"] == "chat.completion"
    tokens = [found["response"]["body"]["usage"]["total_tokens"] for found in good.values()]
    assert batch.usage.total_tokens == sum(tokens) == batch.usage.input_tokens + batch.usage.output_tokens


def test_a_batch_whose_requests_all_fail_is_completed(ai):
    """aqueduct#118: an unknown model among them is no failure of the service."""
    batch = ended(ai, submitted(ai, jsonl([line("a", model="gpt-5"), line("b", model="gpt-5")])).id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 2)
    found = results(ai, batch.error_file_id)["a"]["response"]
    assert (found["status_code"], found["body"]["error"]["code"]) == (404, "model_not_found")


def test_a_batch_without_failures_has_no_error_file(ai):
    batch = ended(ai, submitted(ai, jsonl(chats(3))).id)
    assert batch.error_file_id is None
    assert ai.files.retrieve(batch.output_file_id).purpose == "batch_output"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", [("empty_file", None)]),
        (b"\n \n", [("empty_file", None)]),
        (b'{"custom_id": \n\n[1]\n', [("invalid_json_line", 1), ("invalid_json_line", 3)]),
        (jsonl([line("a"), line("b"), line("a")]), [("duplicate_custom_id", 3)]),
        (jsonl([line("a"), line("b", url="/v1/embeddings")]), [("url_mismatch", 2)]),
        (jsonl([line("a"), line("b", model="org/fake"), line("c", model="x")]), [("model_mismatch", 3)]),
        (jsonl([line("a") | {"custom_id": None}]), [("missing_required_parameter", 1)]),
        (
            jsonl([line("a") | {"custom_id": 3, "method": "GET"}]),
            [("invalid_custom_id", 1), ("invalid_method", 1)],
        ),
        (jsonl([line("a") | {"body": "{}"}]), [("invalid_request", 1)]),
        (b"\xff\n", [("invalid_json_line", 1)]),
    ],
)
def test_wrong_content_fails_the_batch_and_says_where(ai, content, found):
    batch = ended(ai, submitted(ai, content).id)
    assert batch.status == "failed" and batch.failed_at
    assert [(error.code, error.line) for error in batch.errors.data] == found
    assert all(error.message for error in batch.errors.data)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 0)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"completion_window": "tomorrow"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"extra_body": {"priority": "high"}}, "priority"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
    ],
)
def test_a_wrong_batch_is_refused(ai, asked, param):
    file = ai.files.create(file=("in.jsonl", b""), purpose="batch")
    whole = {"input_file_id": file.id, "endpoint": CHATS, "completion_window": "24h"}
    with pytest.raises(openai.BadRequestError) as refused:
        ai.batches.create(**whole | asked)
    assert refused.value.param == param


def test_a_file_that_is_not_there_or_no_input_is_refused(ai):
    with pytest.raises(openai.NotFoundError):
        ai.batches.create(input_file_id="file-0", endpoint=CHATS, completion_window="24h")
    batch = ended(ai, submitted(ai, jsonl(chats(1))).id)
    with pytest.raises(openai.BadRequestError):
        ai.batches.create(input_file_id=batch.output_file_id, endpoint=CHATS, completion_window="24h")


def test_a_batch_needs_its_input_file_no_more(made, ai):
    with made.gate:
        asked = submitted(ai, jsonl(chats(4)))
        ai.files.delete(asked.input_file_id)
    assert ended(ai, asked.id).request_counts.completed == 4


def test_a_cancelled_batch_keeps_what_was_answered(made, ai):
    lines = [*chats(150), line("hot", temperature=9)]
    asked = submitted(ai, jsonl(lines))
    until(lambda: made.service.pulse().rows > 0 or ai.batches.retrieve(asked.id).status != "validating")
    with made.gate:
        until(lambda: ai.batches.retrieve(asked.id).status == "in_progress")
        cancelled = ai.batches.cancel(asked.id)
        assert cancelled.status == "cancelling" and cancelled.cancelling_at
        assert ai.batches.cancel(asked.id).status in ("cancelling", "cancelled")
        until(
            lambda: made.service.pulse().running == 0 or ai.batches.retrieve(asked.id).status == "cancelled"
        )
    batch = ended(ai, asked.id)
    assert batch.status == "cancelled" and batch.cancelled_at >= batch.cancelling_at
    good = results(ai, batch.output_file_id) if batch.output_file_id else {}
    bad = results(ai, batch.error_file_id)
    never = {name for name, found in bad.items() if found["error"]}
    assert {bad[name]["error"]["code"] for name in never} == {"batch_cancelled"}
    assert all(bad[name]["response"] is None for name in never)
    assert sorted([*good, *bad]) == sorted(line["custom_id"] for line in lines)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (151, len(good), len(bad) - len(never))
    with pytest.raises(openai.ConflictError, match="can't be cancelled"):
        ai.batches.cancel(ended(ai, submitted(ai, jsonl(chats(1))).id).id)


def test_a_batch_expires_with_what_was_answered(tmp_path):
    clock = Clock()
    with batching(tmp_path, clock=clock) as made, client(made) as ai:
        with made.gate:
            asked = submitted(ai, jsonl(chats(5)), "30m")
            until(lambda: ai.batches.retrieve(asked.id).status == "in_progress")
            clock.ahead = 1801
            batch = ended(ai, asked.id)
        assert batch.status == "expired" and batch.expired_at >= batch.expires_at
        bad = results(ai, batch.error_file_id)
        assert {found["error"]["code"] for found in bad.values()} == {"batch_expired"}
        assert (len(bad), batch.output_file_id, batch.request_counts.failed) == (5, None, 0)


def test_deadlines_hold_when_the_service_was_down(tmp_path):
    clock = Clock()
    with batching(tmp_path, clock=clock) as made, client(made) as ai, made.gate:
        asked = submitted(ai, jsonl(chats(5)), "30m")
    clock.ahead = 7200
    with batching(tmp_path, clock=clock) as made, client(made) as ai, made.gate:
        batch = ended(ai, asked.id)
        assert batch.status == "expired"
        assert len(results(ai, batch.error_file_id)) == 5


def test_the_next_service_goes_on(tmp_path):
    """What the first one answered is not computed again."""
    with batching(tmp_path) as made, client(made) as ai:
        asked = submitted(ai, jsonl(chats(200)))
        until(lambda: made.service.pulse().rows >= 80)
        done = made.service.pulse().rows
    with batching(tmp_path) as made, client(made) as ai:
        batch = ended(ai, asked.id)
        assert batch.status == "completed"
        assert results(ai, batch.output_file_id).keys() == {f"row-{number}" for number in range(200)}
        assert made.service.pulse().rows <= 200 - done
    assert not list((tmp_path / "open").rglob("batch_*"))
    assert not list(tmp_path.rglob("input.jsonl")) and not list(tmp_path.rglob("*.parquet"))


def test_lists_come_in_pages(tmp_path):
    with batching(tmp_path) as made, client(made) as ai:
        ids = []
        for _ in range(5):
            ids.append(submitted(ai, b"").id)
            time.sleep(0.002)
        assert [batch.id for batch in ai.batches.list(limit=2)] == ids[::-1]
        first = httpx.get(f"{made.url}/v1/batches?limit=2").json()
        assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[4], ids[3], True)
        last = httpx.get(f"{made.url}/v1/batches?limit=2&after={ids[1]}").json()
        assert [batch["id"] for batch in last["data"]] == [ids[0]] and not last["has_more"]
        assert httpx.get(f"{made.url}/v1/batches?limit=0").status_code == 400
        assert httpx.get(f"{made.url}/v1/batches?after=x").status_code == 400


def test_nobody_sees_anothers_batches(tmp_path):
    keys = Keys.of_environment({"NIGHTHERD_API_KEYS": "ann:a,bob:b"})
    with batching(tmp_path, Door(keys=keys)) as made, client(made, "a") as ann, client(made, "b") as bob:
        batch = ended(ann, submitted(ann, jsonl(chats(1))).id)
        for ask in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                ask(batch.id)
        for ask in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(batch.output_file_id)
        with pytest.raises(openai.NotFoundError):
            bob.batches.create(input_file_id=batch.input_file_id, endpoint=CHATS, completion_window="24h")
        assert list(bob.batches.list()) == [] and list(bob.files.list()) == []
        assert len(list(ann.files.list())) == 2
        text = httpx.get(f"{made.url}/metrics", headers={"authorization": "Bearer a"}).text
        assert 'nightherd:key_tokens_total{key="ann",kind="completion"}' in text


def test_the_input_may_have_blank_lines_and_windows_ends(ai):
    content = b"\xef\xbb\xbf" + jsonl(chats(2)).replace(b"\n", b"\r\n\r\n")
    batch = ended(ai, submitted(ai, content).id)
    assert batch.status == "completed", json.dumps(batch.model_dump())
    assert results(ai, batch.output_file_id).keys() == {"row-0", "row-1"}


def test_a_folder_of_another_version_is_refused(tmp_path):
    (tmp_path / "nightherd.json").write_text('{"layout": 99}')
    with pytest.raises(ConfigError, match="another version"), batching(tmp_path):
        pass


def test_a_batch_of_embeddings(tmp_path):
    url = "/v1/embeddings"
    lines = [line(f"row-{n}", url=url, messages=None, max_tokens=None, input=f"text {n}") for n in range(5)]
    with batching(tmp_path, service=live_embeddings) as made, client(made) as ai:
        batch = ended(ai, submitted(ai, jsonl(lines), endpoint=url).id)
        assert batch.status == "completed" and batch.error_file_id is None
        found = results(ai, batch.output_file_id)
        for number in range(5):
            alone = ai.embeddings.create(model="local", input=f"text {number}", encoding_format="float")
            data = found[f"row-{number}"]["response"]["body"]["data"]
            assert data[0]["embedding"] == pytest.approx(alone.data[0].embedding)
        wrong = ended(ai, submitted(ai, jsonl(chats(2))).id)
        assert (wrong.status, wrong.request_counts.failed, wrong.output_file_id) == ("completed", 2, None)


def test_rows_of_a_batch_take_nobodys_place_in_the_queue(tmp_path):
    """The door counts those that somebody waits for."""
    with batching(tmp_path, Door(ServeConfig(queue=2))) as made, client(made) as ai:
        with made.gate, ThreadPoolExecutor(1) as threads:
            asked = submitted(ai, jsonl(chats(60)))
            until(lambda: made.service.pulse().waiting > 40)
            chat = threads.submit(ai.completions.create, model="local", prompt="hi", max_tokens=2, timeout=60)
            until(lambda: made.service.pulse().interactive == 1 or chat.done())
            assert not chat.done()
            made.gate.release()
            try:
                assert chat.result().choices
            finally:
                made.gate.acquire()
        assert ended(ai, asked.id).request_counts.completed == 60


def test_one_owners_batches_leave_room_for_others(tmp_path):
    keys = Keys.of_environment({"NIGHTHERD_API_KEYS": "ann:a,bob:b"})
    with batching(tmp_path, Door(keys=keys)) as made, client(made, "a") as ann, client(made, "b") as bob:
        with made.gate:
            many = [submitted(ann, jsonl(chats(3))).id for _ in range(4)]
            one = submitted(bob, jsonl(chats(3))).id
            until(lambda: bob.batches.retrieve(one).status == "in_progress")
            states = [ann.batches.retrieve(id).status for id in many]
            assert sorted(states) == ["in_progress"] * OF_ONE_OWNER + ["validating"] * (4 - OF_ONE_OWNER)
            # One that still waits is cancelled all the same.
            ann.batches.cancel(many[-1])
            assert ended(ann, many[-1]).status == "cancelled"
        assert {ended(ann, id).status for id in many[:-1]} == {"completed"}
