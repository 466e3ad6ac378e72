"""What storage promises holds on S3, against a real server: created once, whole or absent, never stale."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from pipeline.errors import StorageError
from pipeline.files.object_store import ObjectStore
from pipeline.files.storage import Storage
from tests.object_store.tables import put, put_table
from tests.s3_server import Request, S3Server
from tests.writers import content, ended, processes, race, started


def environment(server: S3Server) -> dict[str, str]:
    return server.environment | {"TMPDIR": os.environ["TMPDIR"]}


def last(server: S3Server, method: str) -> Request:
    return [request for request in server.requests if request.method == method][-1]


def test_what_is_published_can_be_read_and_listed(storage: Storage, temporary: Path) -> None:
    assert storage.list() == {}
    assert put(storage, "responses/b/2.parquet", b"two")
    assert put(storage, "responses/a.parquet", b"one")
    assert storage.read_bytes("responses/a.parquet") == b"one"
    assert {name: entry.size for name, entry in storage.list("responses").items()} == {
        "responses/a.parquet": 3,
        "responses/b/2.parquet": 3,
    }
    assert list(storage.glob("responses/*.parquet")) == ["responses/a.parquet"]
    assert storage.exists("responses/a.parquet") and not storage.exists("responses")
    assert storage.entry("responses/a.parquet") == storage.list()["responses/a.parquet"]
    assert list(temporary.iterdir()) == []


def test_replacing_and_removing(storage: Storage) -> None:
    storage.replace("a/x", b"1")
    storage.replace("a/x", b"22")
    assert storage.read_bytes("a/x") == b"22"
    assert storage.entry("a/x").size == 2
    for _ in range(2):
        storage.remove_tree("a")
        storage.remove("d")
    assert storage.list() == {}
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("a/x")
    with pytest.raises(FileNotFoundError):
        storage.open_input("a/x")


def test_an_object_that_stands_for_a_folder_is_no_file(storage: Storage) -> None:
    storage.fs.pipe_file(f"{storage.root}/", b"")
    storage.fs.pipe_file(f"{storage.root}/responses/", b"")
    assert storage.list() == storage.glob("*") == storage.glob("*/*") == {}
    assert not storage.exists("responses")


def test_what_is_read_by_its_place_comes_in_ranges(storage: Storage, server: S3Server) -> None:
    table = pa.table({"n": range(100_000), "m": range(100_000)})
    put_table(storage, "x.parquet", table)
    with storage.open_input("x.parquet") as file:
        parquet = pq.ParquetFile(file)
        assert parquet.read_row_group(3, columns=["m"]) == table.slice(30_000, 10_000).select(["m"])
        assert parquet.read() == table


def test_a_part_of_a_file_is_one_request(storage: Storage, server: S3Server) -> None:
    put(storage, "x", bytes(range(200)))
    for start, stop in ((0, 200), (0, 1), (7, 90), (199, 200)):
        server.requests.clear()
        assert storage.read_range("x", start, stop) == bytes(range(start, stop))
        assert [request.method for request in server.requests] == ["GET"]
    with pytest.raises(StorageError):
        storage.read_range("x", 150, 201)


def test_the_first_to_publish_wins(storage: Storage, server: S3Server) -> None:
    assert put(storage, "x", b"first")
    assert not put(storage, "x", b"second")
    assert storage.read_bytes("x") == b"first"
    assert last(server, "PUT").if_none_match == "*"


@pytest.mark.parametrize("data", [b"small", content("a")], ids=["put", "parts"])
def test_the_store_itself_refuses_a_second_object(
    data: bytes, storage: Storage, server: S3Server, in_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loser has looked for the name before the winner put it there."""
    put(storage, "x", b"first")
    monkeypatch.setattr(Storage, "exists", lambda self, name: False)
    monkeypatch.setattr(ObjectStore, "is_file", lambda self, path: False)
    assert not put(storage, "x", data)
    assert storage.read_bytes("x") == b"first"
    final = last(server, "PUT" if data == b"small" else "POST")
    assert final.if_none_match == "*"
    assert storage.fs.list_multipart_uploads("bucket") == []


def test_a_file_in_parts_is_whole(storage: Storage, server: S3Server, in_parts: None) -> None:
    assert put(storage, "x", content("a"))
    assert storage.read_bytes("x") == content("a")
    assert [request.method for request in server.requests if "uploadId" in request.query] == ["PUT"] * 5 + [
        "POST"
    ]
    assert not put(storage, "x", content("b"))
    assert storage.read_bytes("x") == content("a")


@pytest.mark.parametrize("parts", [False, True])
def test_of_two_processes_at_once_one_wins_each_time(parts: bool, storage: Storage, server: S3Server) -> None:
    rounds = 8 if parts else 25
    start, won = processes.Barrier(2), processes.Array("i", rounds)
    writers = [started(race, letter, storage.url, environment(server), parts, start, won) for letter in "ab"]
    assert [ended(writer) for writer in writers] == [0, 0]
    assert list(won) == [1] * rounds
    assert {storage.read_bytes(f"{number}")[:1] for number in range(rounds)} <= {b"a", b"b"}
    assert {entry.size for entry in storage.list().values()} == {len(content("a"))}


def test_of_many_threads_at_once_one_wins_each_time(storage: Storage) -> None:
    rounds, start = 6, threading.Barrier(4)
    won: list[list[int]] = [[] for _ in range(rounds)]

    def publish_together(name: str, data: bytes) -> bool:
        return storage.publish(
            name, lambda file: file.write(data) and None, lambda _: start.wait(60) and None
        )

    def write(number: int) -> None:
        for turn in range(rounds):
            if publish_together(f"{turn}", bytes([number]) * 1000):
                won[turn].append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(start.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(winners) for winners in won] == [1] * rounds
    assert [storage.read_bytes(f"{turn}") for turn in range(rounds)] == [bytes(w) * 1000 for w in won]


def test_no_listing_is_kept_that_would_hide_what_others_did(storage: Storage, server: S3Server) -> None:
    other = s3fs.S3FileSystem(use_listings_cache=True, skip_instance_cache=True)
    put(storage, "a/x", b"1")
    assert list(storage.list()) == ["a/x"] and list(storage.glob("a/*")) == ["a/x"]
    other.pipe_file(storage.path("a/y"), b"22")
    other.pipe_file(storage.path("a/x"), b"333")
    assert {name: entry.size for name, entry in storage.list().items()} == {"a/x": 3, "a/y": 2}
    assert list(storage.glob("a/*")) == ["a/x", "a/y"]
    assert storage.exists("a/y") and storage.entry("a/x").size == 3
    other.rm_file(storage.path("a/x"))
    assert not storage.exists("a/x") and list(storage.list("a")) == ["a/y"]
    assert put(storage, "a/x", b"new")
    # Between the refreshing and the looking of one thread, another thread may list: nothing may be kept.
    assert list(storage.list()) == list(storage.glob("a/*")) == ["a/x", "a/y"]
    assert dict(storage.fs.dircache) == {}


def test_the_clients_settings_come_from_the_environment(
    storage: Storage, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert storage.fs.endpoint_url is None
    put(storage, "x", b"data")
    assert last(server, "PUT").path == f"/{storage.root}/x"


def test_a_bucket_that_is_absent_is_named() -> None:
    storage = Storage.at("s3://nobody/out")
    with pytest.raises(StorageError, match=r"can't write x: .*bucket does not exist"):
        put(storage, "x", b"data")
    assert storage.list() == {}
