"""Writers to S3 that are killed: an object is whole or absent, and what they began is swept."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.files.aside import ABANDONED_AFTER
from pipeline.files.storage import Storage
from tests.object_store.tables import put
from tests.s3_server import Fault, Request, S3Server
from tests.writers import STEPS, content, die_at, ended, processes, race, started

ONE_PUT = ["before a byte is written", "in mid-write", "in the check", "before the put", "after the put"]
IN_PARTS = [step for step in STEPS if "part" in step or "upload" in step]


def environment(server: S3Server) -> dict[str, str]:
    return server.environment | {"TMPDIR": os.environ["TMPDIR"]}


@pytest.mark.parametrize("step", ONE_PUT + IN_PARTS)
def test_an_object_is_whole_or_absent_when_its_writer_is_killed(
    step: str, storage: Storage, server: S3Server, temporary: Path
) -> None:
    writer = started(die_at, step, storage.url, environment(server), False, step in IN_PARTS)
    assert ended(writer) == -signal.SIGKILL
    appeared = storage.exists("responses/x")
    assert appeared == (step in {"after the put", "after the parts are joined"})
    assert not appeared or storage.read_bytes("responses/x") == content("a")
    assert len(list(temporary.glob("nightherd-*"))) == 1

    assert put(storage, "responses/x", content("b")) is not appeared
    assert storage.read_bytes("responses/x") == content("a" if appeared else "b")
    uploads = int(step in IN_PARTS and not appeared)
    assert storage.sweep() == uploads
    assert list(temporary.glob("nightherd-*")) == []
    assert storage.fs.list_multipart_uploads("bucket") == []
    assert list(storage.list()) == ["responses/x"]


def test_an_object_whose_writer_is_killed_while_it_is_sent_is_whole_or_absent(
    storage: Storage, server: S3Server
) -> None:
    alone, won = processes.Barrier(1), processes.Array("i", 1)
    sent = threading.Event()

    def kill(request: Request) -> None:
        if request.method == "PUT":
            writer = writers[0]
            os.kill(writer.pid or 0, signal.SIGKILL)
            sent.set()

    server.on_request = kill
    writers = [started(race, "a", storage.url, environment(server), False, alone, won)]
    assert ended(writers[0]) == -signal.SIGKILL
    assert sent.wait(60)
    server.on_request = lambda request: None
    # The system may go on to send what the writer had handed over.
    appeared = storage.exists("0")
    assert not appeared or storage.read_bytes("0") == content("a")
    assert put(storage, "0", content("b")) is not appeared


def test_uploads_of_live_writers_and_of_other_folders_are_not_swept(
    storage: Storage, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (storage.path("x"), f"{storage.root}-other/x"):
        bucket, _, name = key.partition("/")
        storage.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=name)
    monkeypatch.setattr(server, "initiated", _ago(ABANDONED_AFTER - 600))
    assert storage.sweep() == 0
    monkeypatch.setattr(server, "initiated", _ago(ABANDONED_AFTER + 600))
    assert storage.sweep() == 1
    left = storage.fs.list_multipart_uploads("bucket")
    assert [f"bucket/{upload['Key']}" for upload in left] == [f"{storage.root}-other/x"]
    storage.fs.clear_multipart_uploads("bucket")


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def test_a_sweep_that_the_store_refuses_is_left_for_the_next_time(storage: Storage, server: S3Server) -> None:
    server.fail(Fault.REFUSED, "GET", "/bucket")
    assert storage.sweep() == 0
