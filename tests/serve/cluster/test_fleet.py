"""Replicas behind Ray Serve, on a real cluster with the fake model: they answer, die, and are drained."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.faults.machines import Machines
from tests.serve.cluster.fleet import Fleet, Stream, command, fleet
from tests.serve.live import until

LONG = 120.0


@pytest.fixture(scope="module")
def two() -> Iterator[Fleet]:
    with fleet("serve.replicas=2") as made:
        yield made


def test_two_replicas_answer_and_streams_are_finished_after_a_signal():
    with fleet("serve.replicas=2") as made:
        assert len(made.pids("ServeReplica")) == 2
        streams = [Stream(made, f"story {n}") for n in range(6)]
        for stream in streams:
            assert stream.begun.wait(LONG)
        with pytest.raises(openai.NotFoundError) as refused, made.client() as ai:
            ai.models.retrieve("other")
        assert refused.value.code == "model_not_found" and refused.value.request_id.startswith("req_")
        made.process.send_signal(signal.SIGTERM)
        for stream in streams:
            stream.join()
            assert (stream.error, stream.reason) == (None, "length")
        assert made.process.wait(LONG) == 0


@pytest.mark.slow
def test_requests_are_shared_out_and_those_that_begin_alike_stay_together(two):
    streams = [Stream(two, f"{n}" * 600, tokens=100) for n in range(8)]
    for stream in streams:
        stream.join()
        assert stream.error is None
    before = two.requests()
    assert len(before) == 2 and max(before.values()) <= 5
    for turn in range(6):
        two.chat(messages=[{"role": "user", "content": "9" * 600 + f" {turn}"}])
    after = two.requests()
    assert sorted(after[name] - before[name] for name in after) == [0, 6]


@pytest.mark.slow
def test_a_replica_that_is_killed_in_mid_stream_is_told_and_replaced(two):
    streams = [Stream(two, f"story {n}") for n in range(6)]
    for stream in streams:
        assert stream.begun.wait(LONG)
    killed = two.kill("ServeReplica")
    for stream in streams:
        stream.join()
    cut = [stream for stream in streams if stream.error]
    assert 0 < len(cut) < 6
    for stream in cut:
        assert isinstance(stream.error, openai.APIError) and "is gone: try again" in str(stream.error)
    assert all(stream.reason == "length" for stream in streams if stream not in cut)
    # At once, by the other one.
    assert two.answers()
    until(lambda: len(two.pids("ServeReplica") - {killed}) == 2, LONG)
    assert two.answers()


@pytest.mark.slow
def test_a_request_whose_replica_dies_before_it_has_answered_is_tried_again(two):
    streams = [Stream(two, f"wait {n}", tokens=200) for n in range(8)]  # All slots are taken.
    for stream in streams:
        assert stream.begun.wait(LONG)
    waiting = [Stream(two, f"later {n}", tokens=5) for n in range(4)]
    until(lambda: sum(s.begun.is_set() for s in waiting) == 0)
    two.kill("ServeReplica")
    for stream in (*waiting, *streams):
        stream.join()
    assert [stream.error for stream in waiting] == [None] * 4
    until(lambda: len(two.pids("ServeReplica")) == 2, LONG)


@pytest.mark.slow
def test_without_its_controller_the_service_goes_on(two):
    stream = Stream(two, "a story")
    assert stream.begun.wait(LONG)
    killed = two.kill("ServeController")
    assert two.answers()
    stream.join()
    assert stream.error is None
    until(lambda: two.pids("ServeController") - {killed}, LONG)
    assert two.answers() and two.process.poll() is None


@pytest.mark.slow
def test_a_proxy_that_is_killed_comes_back(two):
    stream = Stream(two, "a story")
    assert stream.begun.wait(LONG)
    two.kill("ProxyActor")
    stream.join()
    assert isinstance(stream.error, openai.APIConnectionError | httpx.TransportError)
    two.wait_until_it_answers(LONG)
    assert two.process.poll() is None


@pytest.mark.slow
def test_nothing_is_left_of_a_service_that_is_killed():
    with fleet("serve.replicas=2") as made:
        children = psutil.Process(made.process.pid).children(recursive=True)
        made.process.kill()
        until(lambda: not any(_runs(child) for child in children), LONG)


@pytest.mark.slow
def test_what_can_not_be_loaded_ends_the_command():
    with command("serve.replicas=2", "model.path=missing") as (process, said):
        assert process.wait(LONG) == 1
        until(lambda: said)
        assert said == ["missing: no such file\n"]
        assert process.stdout and process.stdout.read() == ""


@pytest.mark.slow
def test_a_replica_with_a_broken_engine_is_replaced(tmp_path: Path):
    flag = tmp_path / "broken"
    flag.touch()
    with fleet("serve.replicas=2", f"model.path={flag}") as made:
        before = made.pids("ServeReplica")
        with pytest.raises(openai.InternalServerError):
            made.chat()
        flag.unlink()
        until(lambda: before - made.pids("ServeReplica"), LONG)
        made.wait_until_it_answers(LONG)


@pytest.mark.slow
def test_keys_are_asked_for_by_all_replicas_and_a_change_reaches_them(tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("ann:one\n")
    with fleet("serve.replicas=2", keys=keys) as made:

        def status(key: str) -> set[int]:
            headers = {"authorization": f"Bearer {key}"}
            asked = [httpx.get(f"{made.url}/models", headers=headers, timeout=30) for _ in range(6)]
            return {answer.status_code for answer in asked}

        assert (status("one"), status("two")) == ({200}, {401})
        assert httpx.get(f"{made.url}/metrics", timeout=30).status_code == 401
        keys.write_text("bob:two\n")
        until(lambda: (status("one"), status("two")) == ({401}, {200}), LONG)


@pytest.mark.slow
def test_a_batch_is_worked_on_by_the_replicas_and_goes_on_where_one_dies(tmp_path: Path):
    lines = [
        {
            "custom_id": f"row {n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": f"{n}"}], "max_tokens": 100},
        }
        for n in range(200)
    ]
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF" + bytes(100))  # Its hash is asked for.
    settings = ("serve.replicas=2", f"model.path={model}")
    with fleet(*settings, data=tmp_path / "data") as made, made.client() as ai:
        content = "\n".join(map(json.dumps, lines)).encode()
        file = ai.files.create(file=("rows.jsonl", content), purpose="batch")
        batch = ai.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )

        def state() -> str:
            found = ai.batches.retrieve(batch.id)
            assert found.status in ("validating", "in_progress", "finalizing", "completed"), found
            return found.status

        until(lambda: state() == "in_progress", LONG)
        for pid in made.pids("ServeReplica"):  # One of them has it.
            os.kill(pid, signal.SIGKILL)
        made.wait_until_it_answers()
        until(lambda: state() == "completed", LONG)
        done = ai.batches.retrieve(batch.id)
        assert done.output_file_id and done.request_counts and done.request_counts.completed == 200
        answers = [json.loads(line) for line in ai.files.content(done.output_file_id).text.splitlines()]
        names = [sorted(line["custom_id"] for line in found) for found in (answers, lines)]
        assert names[0] == names[1]


@pytest.mark.slow
def test_on_a_cluster_the_service_outlives_its_command_and_the_next_one_takes_its_place():
    with closing(Machines((), num_cpus=2)) as machines:
        with fleet("serve.replicas=2", address=machines.address) as first:
            with command("serve.replicas=1", address=machines.address) as (second, said):
                assert second.wait(LONG) == 2
                until(lambda: said)
                assert "runs on this Ray cluster already" in said[0]
            assert first.answers()
            first.process.kill()
            first.process.wait()
            assert first.answers()
        with fleet("serve.replicas=1", address=machines.address) as second_fleet:
            assert second_fleet.answers() and not first.answers()
            second_fleet.process.send_signal(signal.SIGTERM)
            assert second_fleet.process.wait(LONG) == 0
            assert not second_fleet.answers()


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
