"""A published file is complete or absent, the first to publish wins, and failures have a name."""

from __future__ import annotations

import os
import threading
import uuid
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pipeline.errors import StorageError
from pipeline.files import retries
from pipeline.files.storage import Storage
from tests.faulty_storage import file_server


@pytest.fixture(params=["local", "memory", "server"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "server":
        return file_server(tmp_path / "out")
    local = request.param == "local"
    return Storage.at(str(tmp_path / "out") if local else f"memory://storage-{uuid.uuid4().hex}/out")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)


def put(storage: Storage, name: str, data: bytes) -> bool:
    return storage.publish(name, lambda file: file.write(data) and None)


def test_what_is_published_can_be_read_and_listed(storage: Storage) -> None:
    assert storage.list() == {}
    assert put(storage, "responses/b/2.parquet", b"two")
    assert put(storage, "responses/a.parquet", b"one")
    assert storage.read_bytes("responses/a.parquet") == b"one"
    with storage.open_input("responses/b/2.parquet") as file:
        assert file.read() == b"two"
    found = storage.list("responses")
    assert {name: entry.size for name, entry in found.items()} == {
        "responses/a.parquet": 3,
        "responses/b/2.parquet": 3,
    }
    assert storage.exists("responses/a.parquet") and not storage.exists("responses/c.parquet")
    assert list(storage.glob("responses/*.parquet")) == ["responses/a.parquet"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.parquet", ["x.parquet"]),
        ("a/*.parquet", ["a/x.parquet"]),
        ("a*/*.parquet", ["a/x.parquet", "a[1]/x.parquet"]),
        ("**/x.parquet", ["a/b/x.parquet", "a/x.parquet", "a[1]/x.parquet", "x.parquet"]),
        ("a/**", ["a/b/x.parquet", "a/x.parquet"]),
        ("nothing/*", []),
    ],
)
def test_a_glob_finds_files_by_their_names(storage: Storage, pattern: str, names: list[str]) -> None:
    for name in ("x.parquet", "y.jsonl", "a/x.parquet", "a/b/x.parquet", "a[1]/x.parquet"):
        put(storage, name, b"1")
    assert list(storage.glob(pattern)) == names


def test_the_first_to_publish_wins(storage: Storage) -> None:
    assert put(storage, "x", b"first")
    assert not put(storage, "x", b"second")
    assert storage.read_bytes("x") == b"first"


@pytest.mark.parametrize("storage", ["local", "memory"], indirect=True)
def test_of_many_writers_at_once_one_wins(storage: Storage) -> None:
    won: list[int] = []
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        if put(storage, "x", bytes([number]) * 1000):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.read_bytes("x") == bytes(won) * 1000


def test_a_writer_that_fails_half_way_publishes_nothing(storage: Storage) -> None:
    def half(file: BinaryIO) -> None:
        file.write(b"half")
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        storage.publish("x", half)
    assert storage.list() == {}


def test_a_file_that_its_check_refuses_is_not_published(storage: Storage) -> None:
    def refuse(path: Path) -> None:
        assert path.read_bytes() == b"short"
        raise ValueError("too short")

    with pytest.raises(ValueError, match="too short"):
        storage.publish("x", lambda file: file.write(b"short") and None, refuse)
    assert storage.list() == {}


def test_the_name_is_absent_until_the_file_is_whole(storage: Storage) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        assert not storage.exists("responses/x")
        assert storage.list("responses") == {}

    assert storage.publish("responses/x", write, lambda path: None)
    assert storage.exists("responses/x")


def test_a_passing_failure_is_tried_again_from_an_empty_file(storage: Storage) -> None:
    calls: list[int] = []

    def write(file: BinaryIO) -> None:
        assert file.tell() == 0
        calls.append(1)
        file.write(b"data")
        if len(calls) < 3:
            raise OSError(5, "Input/output error")

    assert storage.publish("x", write)
    assert len(calls) == 3
    assert storage.read_bytes("x") == b"data"


def test_a_lasting_failure_is_named_after_five_attempts(storage: Storage) -> None:
    calls: list[int] = []

    def full(file: BinaryIO) -> None:
        calls.append(1)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"can't write x: .*No space left"):
        storage.publish("x", full)
    assert len(calls) == 5
    assert storage.list() == {}


def test_a_put_that_comes_out_short_is_an_error() -> None:
    storage = Storage.at(f"memory://storage-{uuid.uuid4().hex}")
    put_all = storage.fs.pipe_file
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="2 bytes of 4"):
        patch.setattr(storage.fs, "pipe_file", lambda path, data: put_all(path, data[:2]))
        put(storage, "x", b"data")
    assert not storage.exists("x")


def test_an_upload_that_comes_out_short_never_bears_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = file_server(tmp_path / "out")
    monkeypatch.setattr(storage.fs, "put_file", lambda here, there: Path(there).write_bytes(b"da"))
    with pytest.raises(StorageError, match="2 bytes of 4"):
        put(storage, "x", b"data")
    assert storage.list() == {}


def test_replace_overwrites_in_one_step(storage: Storage) -> None:
    storage.replace("_work/progress.json", b"1")
    storage.replace("_work/progress.json", b"2")
    assert storage.read_bytes("_work/progress.json") == b"2"
    assert list(storage.list()) == ["_work/progress.json"]


def test_a_file_that_its_check_refuses_overwrites_nothing(storage: Storage) -> None:
    def refuse(path: Path) -> None:
        raise ValueError("too short")

    put(storage, "x", b"old")
    with pytest.raises(ValueError, match="too short"):
        storage.overwrite("x", lambda file: file.write(b"new") and None, refuse)
    assert storage.read_bytes("x") == b"old"
    storage.overwrite("x", lambda file: file.write(b"new") and None, lambda path: None)
    assert storage.read_bytes("x") == b"new"
    assert list(storage.list()) == ["x"]


def test_removal_of_what_is_absent_is_fine(storage: Storage) -> None:
    put(storage, "a/b/c", b"1")
    put(storage, "d", b"1")
    for _ in range(2):
        storage.remove_tree("a")
        storage.remove("d")
    assert storage.list() == {}


def test_a_folder_that_others_remove_at_the_same_time_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.at(str(tmp_path))
    for name in ("a/1", "a/2", "a/b/3"):
        put(storage, name, b"")
    unlink, faster = os.unlink, [True]

    def removed(*args: Any, **kwargs: Any) -> None:
        unlink(*args, **kwargs)
        if faster:
            faster.clear()
            raise FileNotFoundError("another was faster")

    monkeypatch.setattr(os, "unlink", removed)
    storage.remove_tree("a")
    assert not (tmp_path / "a").exists() and not faster


def test_reading_what_is_absent_says_so(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("x")
    with pytest.raises(FileNotFoundError):
        storage.open_input("x")


def test_a_refusal_is_not_retried(storage: Storage) -> None:
    calls: list[int] = []

    def refuse(file: BinaryIO) -> None:
        calls.append(1)
        raise PermissionError(13, "Permission denied")

    with pytest.raises(StorageError, match="Permission denied"):
        storage.publish("x", refuse)
    assert len(calls) == 1


def test_an_unknown_protocol_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="nosuch"):
        Storage.at("nosuch://bucket/x")


def test_an_archive_that_is_absent_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent\.zip"):
        Storage.at(f"zip://a.parquet::file://{tmp_path}/absent.zip")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which none can be made")
def test_a_folder_that_cannot_be_made_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="can't write a: "):
        Storage.at("/proc/absent/out").publish("a", lambda file: None)
