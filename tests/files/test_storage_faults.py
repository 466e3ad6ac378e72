"""Storage that fails is tried again, or named; what it was to hold is whole or absent afterwards."""

from __future__ import annotations

import io
import os
import time
import uuid
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import StorageError
from pipeline.files import retries
from pipeline.files.entry import Entry
from pipeline.files.input_file import InputFile
from pipeline.files.local import link
from pipeline.files.storage import Storage
from tests.faulty_storage import (
    ALWAYS,
    BROKEN,
    FULL,
    WRITE_FAULTS,
    Countdown,
    ShortReads,
    failing,
    file_server,
    files_no_longer_than,
)


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


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_a_file_is_published_though_at_first(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.at(str(tmp_path / "out"))
    with monkeypatch.context() as patch:
        WRITE_FAULTS[fault](patch, 4)
        assert put(storage, "responses/x", b"whole file")
    assert storage.read_bytes("responses/x") == b"whole file"
    assert list(storage.list()) == ["responses/x"]


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_nothing_is_published_and_the_failure_named_if_always(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.at(str(tmp_path / "out"))
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="can't write responses/x: "):
        WRITE_FAULTS[fault](patch, ALWAYS)
        put(storage, "responses/x", b"whole file")
    assert storage.list() == {}


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_what_was_there_stays_if_always(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.at(str(tmp_path / "out"))
    put(storage, "x", b"old")
    faults = {**WRITE_FAULTS, "no space is left for its name": failing(Path, "replace", FULL)}
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="can't write x: "):
        faults[fault](patch, ALWAYS)
        storage.replace("x", b"new file")
    assert storage.read_bytes("x") == b"old"
    assert list(storage.list()) == ["x"]


def test_a_file_that_the_system_stops_half_way_is_not_published(storage: Storage) -> None:
    with files_no_longer_than(500_000), pytest.raises(StorageError, match="File too large"):
        put(storage, "x", b"x" * 1_000_000)
    assert storage.list() == {}
    assert put(storage, "x", b"x" * 1_000_000)


def test_a_work_folder_that_is_cleared_meanwhile_is_made_again(storage: Storage) -> None:
    cleared: list[int] = []

    def write(file: BinaryIO) -> None:
        file.write(b"data")
        if not cleared:
            cleared.append(1)
            Path(file.name).unlink()

    assert storage.publish("x", write)
    assert storage.read_bytes("x") == b"data"


def test_a_work_folder_that_is_cleared_while_it_is_made_is_made_again(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir
    cleared: list[Path] = []

    def mkdir(path: Path, *args: Any, **options: Any) -> None:
        if path.name == "tmp" and not cleared:
            cleared.append(path)
            raise FileNotFoundError(path)
        made(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert put(storage, "x", b"data")


def test_a_missing_file_of_the_callers_is_no_failure_of_storage(storage: Storage) -> None:
    def write(file: BinaryIO) -> None:
        storage.read_bytes("absent")

    with pytest.raises(FileNotFoundError, match="absent"):
        storage.publish("x", write)


def test_an_old_name_that_stays_does_not_undo_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.at(str(tmp_path / "out"))

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise BROKEN

    monkeypatch.setattr(Path, "unlink", unlink)
    assert put(storage, "x", b"data")


@pytest.mark.parametrize("error", [1, 95])
def test_a_folder_without_links_gets_the_file_by_a_rename(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "aside").write_bytes(b"data")
    assert link(tmp_path / "aside", tmp_path / "x")
    (tmp_path / "aside").write_bytes(b"late")
    assert not link(tmp_path / "aside", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"data"


def test_the_pauses_between_tries_grow_and_differ_and_end_within_half_a_minute() -> None:
    first, second = retries.pauses(retries.TRIES), retries.pauses(retries.TRIES)
    assert first == sorted(first) and first != second
    assert len(first) == retries.TRIES - 1
    assert 1 < sum(first) < 30


def test_each_try_but_the_last_is_followed_by_its_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(retries, "sleep", slept.append)
    monkeypatch.setattr(retries, "pauses", lambda tries: [1.0, 2.0])
    with pytest.raises(StorageError, match=r"can't do it: .*Input/output"):
        retries.retried("can't do it", _raise_broken)
    assert slept == [1.0, 2.0]


def test_what_its_client_tried_for_long_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        time.sleep(0.01)
        raise BROKEN

    monkeypatch.setattr(retries, "PATIENCE", 0.0)
    with pytest.raises(StorageError):
        retries.retried("can't do it", fail)
    assert len(calls) == 1


def test_a_long_write_is_tried_again_however_late_it_failed(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def write(file: BinaryIO) -> None:
        calls.append(1)
        time.sleep(0.01)
        if len(calls) == 1:
            raise BROKEN

    monkeypatch.setattr(retries, "PATIENCE", 0.0)
    assert storage.publish("x", write)
    storage.overwrite("x", write)
    assert len(calls) == 3


def _raise_broken() -> None:
    raise OSError(5, "Input/output error")


def publish_table(storage: Storage) -> pa.Table:
    table = pa.table({"n": range(100_000)})
    storage.publish("x", lambda file: pq.write_table(table, file, row_group_size=20_000))
    return table


def test_a_part_of_a_file_is_read_by_its_place(storage: Storage) -> None:
    put(storage, "x", bytes(range(200)))
    with storage.open_input("x") as file:
        assert file.size() == 200
        file.seek(150)
        assert file.read(10) == bytes(range(150, 160))
        assert file.tell() == 160
        assert file.read() == bytes(range(160, 200))
        assert file.read(5) == b""
        assert file.read_at(3, 20) == bytes(range(20, 23))


@pytest.mark.parametrize("times", [4, ALWAYS])
@pytest.mark.parametrize("way", ["fails", "comes back short"])
def test_a_read_is_tried_again_when_it(
    way: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = file_server(tmp_path / "out")
    table = publish_table(storage)
    open_whole, left = storage.fs.open, [times]

    def opened(path: str, mode: str) -> Any:
        left[0] -= 1
        if left[0] < 0:
            return open_whole(path, mode)
        if way == "fails":
            raise BROKEN
        return ShortReads(Path(path).read_bytes(), storage.fs.info(path))

    monkeypatch.setattr(storage.fs, "open", opened)
    if times == ALWAYS:
        with pytest.raises(StorageError, match="can't read x: "), storage.open_input("x") as file:
            pq.read_table(file)
    else:
        with storage.open_input("x") as file:
            assert pq.read_table(file) == table


@pytest.mark.parametrize("storage", ["local", "server"], indirect=True)
def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "a/x", b"1")
    put(storage, "b/y", b"1")
    fail_below("b", monkeypatch, storage, times=4)
    assert list(storage.list()) == list(storage.glob("*/*")) == ["a/x", "b/y"]
    fail_below("b", monkeypatch, storage, times=ALWAYS)
    with pytest.raises(StorageError, match=r"can't list \.: .*Input/output"):
        storage.list()
    with pytest.raises(StorageError, match=r"can't list \.: .*Input/output"):
        storage.glob("*/*")


def fail_below(folder: str, monkeypatch: pytest.MonkeyPatch, storage: Storage, times: int) -> None:
    """The next listings of a folder fail."""
    owner, name = (os, "scandir") if storage.local else (storage.fs, "ls")
    original, fails = getattr(owner, name), Countdown(times)

    def listed(path: str, **kwargs: Any) -> Any:
        if str(path).endswith(f"/{folder}") and fails():
            raise BROKEN
        return original(path, **kwargs)

    monkeypatch.setattr(owner, name, listed)


@pytest.mark.parametrize("storage", ["local", "server"], indirect=True)
def test_a_name_that_cannot_be_looked_for_is_not_taken_for_absent(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "x", b"1")
    owner, name = (Path, "stat") if storage.local else (storage.fs, "info")
    with monkeypatch.context() as patch:
        failing(owner, name, BROKEN)(patch, 4)
        assert storage.exists("x")
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="can't look for x: "):
        failing(owner, name, BROKEN)(patch, ALWAYS)
        storage.exists("x")


def test_pieces_of_two_files_are_never_read_as_one() -> None:
    states = [(ShortReads(b"old data", {}), Entry(8, "1")), (io.BytesIO(b"new data"), Entry(8, "2"))]
    file = InputFile("can't read x", lambda: states.pop(0))
    with pytest.raises(StorageError, match="can't read x: it changed while it was read"):
        file.read()
