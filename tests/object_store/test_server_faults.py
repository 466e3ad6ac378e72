"""A server that is busy, or loses answers, or cuts them off: tried again, or named; never half-done."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StorageError
from pipeline.files.storage import Storage
from tests.faulty_storage import ALWAYS
from tests.object_store.tables import put, put_table
from tests.s3_server import Fault, S3Server
from tests.writers import content


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
def test_a_file_is_published_though_the_server_is_busy_at_first(
    method: str, storage: Storage, server: S3Server
) -> None:
    server.fail(Fault.REFUSED, method, "/responses/x", times=4)
    assert put(storage, "responses/x", b"whole")
    assert storage.read_bytes("responses/x") == b"whole"


@pytest.mark.parametrize("method", ["HEAD", "PUT"])
def test_nothing_is_published_and_the_failure_named_if_it_stays_busy(
    method: str, storage: Storage, server: S3Server, temporary: Path
) -> None:
    server.fail(Fault.REFUSED, method, "/responses/x", times=ALWAYS)
    with pytest.raises(StorageError, match=r"can't (look for|write) responses/x: .*Unavailable"):
        put(storage, "responses/x", b"whole")
    server.heal()
    assert storage.list() == {}
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("times", [2, ALWAYS])
def test_parts_that_the_server_is_too_busy_for_leave_nothing_half_done(
    method: str, times: int, storage: Storage, server: S3Server, in_parts: None
) -> None:
    server.fail(Fault.REFUSED, method, "/responses/x", times)
    if times == ALWAYS:
        with pytest.raises(StorageError, match=r"can't write responses/x: .*Unavailable"):
            put(storage, "responses/x", content("a"))
    else:
        assert put(storage, "responses/x", content("a"))
    server.heal()
    assert list(storage.list()) == ([] if times == ALWAYS else ["responses/x"])
    assert storage.fs.list_multipart_uploads("bucket") == []


@pytest.mark.parametrize(
    ("data", "method", "query"), [(b"small", "PUT", ""), (content("a"), "POST", "uploadId")]
)
def test_a_put_whose_answer_is_lost_is_done_once(
    data: bytes, method: str, query: str, storage: Storage, server: S3Server, in_parts: None
) -> None:
    server.fail(Fault.LOST, method, "/x", query=query)
    assert not put(storage, "x", data), "its own file is in the way"
    assert storage.read_bytes("x") == data


def test_an_upload_that_comes_out_short_is_taken_away(
    storage: Storage, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_half(here: str, there: str, mode: str) -> None:
        storage.fs.pipe_file(there, Path(here).read_bytes()[:2], mode=mode)

    monkeypatch.setattr(storage.fs, "put_file", put_half)
    with pytest.raises(StorageError, match="held 2 bytes of 4"):
        put(storage, "responses/x", b"data")
    assert storage.list() == {}


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.SHORT])
def test_a_read_is_tried_again(fault: Fault, storage: Storage, server: S3Server) -> None:
    table = pa.table({"n": range(100_000)})
    put_table(storage, "x", table)
    server.fail(fault, "GET", "/x", times=4)
    assert len(storage.read_bytes("x")) == storage.entry("x").size
    server.heal()
    server.fail(fault, "GET", "/x", times=4)
    with storage.open_input("x") as file:
        assert pq.read_table(file) == table


def test_a_read_that_always_fails_is_named(storage: Storage, server: S3Server) -> None:
    put_table(storage, "x", pa.table({"n": range(100_000)}))
    with storage.open_input("x") as file:
        server.fail(Fault.REFUSED, "GET", "/x", times=ALWAYS)
        with pytest.raises(StorageError, match=r"can't read x: .*Unavailable"):
            pq.read_table(file)
    with pytest.raises(StorageError, match=r"can't read x: .*Unavailable"):
        storage.read_bytes("x")


def test_an_object_that_is_replaced_while_it_is_read_is_refused(storage: Storage) -> None:
    put(storage, "x", bytes(1000))
    with storage.open_input("x") as file:
        storage.replace("x", bytes(2000))
        with pytest.raises(StorageError, match="can't read x: it changed while it was read"):
            file.read()


@pytest.mark.parametrize("pattern", ["*", "**", "a/x*", "a/*"])
def test_a_listing_is_whole_or_an_error(pattern: str, storage: Storage, server: S3Server) -> None:
    for name in ("a/x1", "a/x2", "b/x3"):
        put(storage, name, b"1")
    whole = list(storage.glob(pattern))
    server.fail(Fault.REFUSED, "GET", "/bucket", times=4)
    assert list(storage.glob(pattern)) == whole
    server.heal()
    server.fail(Fault.REFUSED, "GET", "/bucket", times=4)
    assert list(storage.list()) == ["a/x1", "a/x2", "b/x3"]
    server.fail(Fault.REFUSED, "GET", "/bucket", times=ALWAYS)
    with pytest.raises(StorageError, match=r"can't list .*Unavailable"):
        storage.glob(pattern)
    with pytest.raises(StorageError, match=r"can't list \.: .*Unavailable"):
        storage.list()


def test_a_glob_lists_no_deeper_than_it_reaches(storage: Storage, server: S3Server) -> None:
    for name in ("x1", "a/x2", "a/b/x3"):
        put(storage, name, b"1")
    server.requests.clear()
    assert list(storage.glob("*/x*")) == ["a/x2"]
    listed = [request.query for request in server.requests if "list-type" in request.query]
    assert len(listed) == 2 and all("delimiter=%2F" in query or "delimiter=/" in query for query in listed)


def test_a_name_that_cannot_be_looked_for_is_not_taken_for_absent(storage: Storage, server: S3Server) -> None:
    put(storage, "x", b"1")
    server.fail(Fault.REFUSED, "HEAD", "/x", times=4)
    assert storage.exists("x")
    server.fail(Fault.REFUSED, "HEAD", "/x", times=ALWAYS)
    with pytest.raises(StorageError, match=r"can't look for x: .*Unavailable"):
        storage.exists("x")
