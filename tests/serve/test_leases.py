"""Who works on a batch where several processes could."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.files.aside import Writer
from pipeline.files.storage import Storage
from pipeline.serve.batches import lease
from pipeline.serve.batches.lease import SECONDS, take
from tests.serve.batching import Clock, batching, chats, client, ended, jsonl, results, submitted
from tests.serve.live import until


@pytest.fixture
def data(tmp_path: Path) -> Storage:
    return Storage.at(str(tmp_path))


def test_one_holds_it_until_it_is_released(data):
    first = take(data, "lease")
    assert first and take(data, "lease") is None
    first.release()
    second = take(data, "lease")
    assert second and second.number == first.number + 1
    assert first.renewed(0.0) is None


def test_one_that_is_not_renewed_is_over(data):
    now = 1000.0
    first = take(data, "lease", lambda: now)
    assert first
    now += SECONDS - 1
    assert take(data, "lease", lambda: now) is None
    assert (first := first.renewed(now))
    now += SECONDS - 1
    assert take(data, "lease", lambda: now) is None
    now += 2
    assert take(data, "lease", lambda: now)
    assert first.renewed(now) is None


def test_nobody_waits_for_a_process_that_is_gone(data, monkeypatch):
    code = "from pipeline.files.aside import Writer as w; h = w.here(); print(h.machine, h.pid, h.started)"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    machine, pid, started = gone.stdout.split()
    with monkeypatch.context() as there:
        there.setattr(Writer, "here", lambda: Writer(machine, int(pid), int(started)))
        assert take(data, "lease")
    assert take(data, "lease")


def test_of_many_that_want_it_one_gets_it(data):
    got: list[object] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        got.append(take(data, "lease"))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found is not None for found in got) == 1


def test_two_services_share_the_work(tmp_path):
    with batching(tmp_path) as one, batching(tmp_path) as two, client(one) as ai, client(two) as other:
        asked = [submitted((ai, other)[number % 2], jsonl(chats(40))) for number in range(4)]
        for batch in asked:
            done = ended(other, batch.id)
            assert done.status == "completed"
            assert results(ai, done.output_file_id).keys() == {f"row-{number}" for number in range(40)}
        # Each row is computed by one of them, once.
        assert one.service.pulse().rows + two.service.pulse().rows == 160


def test_a_service_that_stands_still_loses_its_batch_to_another(tmp_path, monkeypatch):
    """And what it still does when it wakes up changes nothing."""
    clock = Clock()
    with batching(tmp_path, clock=clock) as one, client(one) as ai:
        renewed = threading.Event()
        with one.gate:
            asked = submitted(ai, jsonl(chats(30)))
            until(lambda: ai.batches.retrieve(asked.id).status == "in_progress")
            with monkeypatch.context() as asleep:
                asleep.setattr(lease.Lease, "renewed", lambda self, now: renewed.wait(20) and None)
                until(lambda: one.service.pulse().running > 0)
                clock.ahead = SECONDS + 1
                with batching(tmp_path, clock=clock) as two, client(two) as other:
                    done = ended(other, asked.id)
                    assert done.status == "completed" and two.service.pulse().rows == 30
                    written = other.files.content(done.output_file_id).content
                renewed.set()
        until(lambda: one.service.pulse().running == 0)
        assert ai.batches.retrieve(asked.id) == done
        assert ai.files.content(done.output_file_id).content == written
