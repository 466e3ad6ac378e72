"""Writers that are killed leave nothing half-done, and what they leave is swept; live ones are let be."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.files.aside import ABANDONED_AFTER, Writer, temporary_folder
from pipeline.files.storage import ASIDE, Storage
from tests.faulty_storage import ALWAYS, BROKEN, failing, file_server
from tests.writers import STEPS, content, die_at, ended, processes, publish_slowly, started

LOCAL_STEPS = [step for step in STEPS if "put" not in step and "part" not in step and "upload" not in step]
RENAMES = ["before the rename", "after the rename"]
LINKS = ["before the link", "after the link"]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.at(str(tmp_path / "out"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This machine's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    temporary_folder.cache_clear()
    yield folder
    temporary_folder.cache_clear()


def put(storage: Storage, name: str, data: bytes) -> bool:
    return storage.publish(name, lambda file: file.write(data) and None)


def leave(folder: Path, writer: str, age: float = 0) -> Path:
    """A file that a writer left, so many seconds old."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"nightherd-{writer}-{uuid.uuid4().hex}"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize("step", [step for step in LOCAL_STEPS if step not in RENAMES])
def test_a_file_is_whole_or_absent_when_its_writer_is_killed(step: str, storage: Storage) -> None:
    put(storage, "responses/before", b"")
    assert ended(started(die_at, step, storage.url, {}, False, False)) == -signal.SIGKILL
    appeared = storage.exists("responses/x")
    assert appeared == (step in {"after the link", "after the folder is synced", "before the old name goes"})
    assert not appeared or storage.read_bytes("responses/x") == content("a")

    assert put(storage, "responses/x", content("b")) is not appeared
    assert storage.read_bytes("responses/x") == content("a" if appeared else "b")
    storage.sweep()
    assert list(storage.list()) == ["responses/before", "responses/x"]


@pytest.mark.parametrize("step", [step for step in LOCAL_STEPS if step not in LINKS])
def test_a_file_is_the_old_or_the_new_one_when_its_writer_is_killed(step: str, storage: Storage) -> None:
    put(storage, "responses/x", content("o"))
    assert ended(started(die_at, step, storage.url, {}, True, False)) == -signal.SIGKILL
    replaced = step in {"after the rename", "after the folder is synced", "before the old name goes"}
    assert storage.read_bytes("responses/x") == content("a" if replaced else "o")

    storage.overwrite("responses/x", lambda file: file.write(content("b")) and None)
    assert storage.read_bytes("responses/x") == content("b")
    storage.sweep()
    assert list(storage.list()) == ["responses/x"]


def test_what_a_killed_writer_left_is_swept(storage: Storage) -> None:
    half, go = processes.Event(), processes.Event()
    writer = started(publish_slowly, storage.url, {}, half, go)
    assert half.wait(60)
    assert len(storage.list(ASIDE)) == 1
    os.kill(writer.pid or 0, signal.SIGKILL)
    assert ended(writer) == -signal.SIGKILL
    assert storage.sweep() == 1
    assert storage.list() == {}


def test_a_dead_process_that_nobody_has_buried_counts_as_dead(storage: Storage) -> None:
    zombie = subprocess.Popen(["/bin/sh", "-c", "exit"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    started_at = int(Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[19])
    leave(Path(storage.path(ASIDE)), f"{Writer.here().machine}-{zombie.pid}-{started_at}")
    assert storage.sweep() == 1
    zombie.wait()


def test_what_a_stopped_writer_holds_stays_and_is_published_later(storage: Storage) -> None:
    half, go = processes.Event(), processes.Event()
    writer = started(publish_slowly, storage.url, {}, half, go)
    assert half.wait(60) and writer.pid
    os.kill(writer.pid, signal.SIGSTOP)
    assert storage.sweep() == 0
    assert len(storage.list(ASIDE)) == 1
    os.kill(writer.pid, signal.SIGCONT)
    go.set()
    assert ended(writer) == 0
    assert storage.read_bytes("x") == content("a")
    assert list(storage.list()) == ["x"]


def test_a_stopped_writer_loses_against_a_faster_one_and_leaves_nothing(storage: Storage) -> None:
    half, go = processes.Event(), processes.Event()
    writer = started(publish_slowly, storage.url, {}, half, go)
    assert half.wait(60) and writer.pid
    os.kill(writer.pid, signal.SIGSTOP)
    assert put(storage, "x", content("b"))
    os.kill(writer.pid, signal.SIGCONT)
    go.set()
    assert ended(writer) == 1
    assert storage.read_bytes("x") == content("b")
    assert list(storage.list()) == ["x"]


def test_a_process_that_bears_a_dead_ones_pid_keeps_nothing_from_the_sweep(storage: Storage) -> None:
    here = Writer.here()
    dead = leave(Path(storage.path(ASIDE)), f"{here.machine}-{here.pid}-{here.started - 1}")
    alive = leave(Path(storage.path(ASIDE)), f"{here}", age=10 * ABANDONED_AFTER)
    assert storage.sweep() == 1
    assert not dead.exists() and alive.exists()


def test_writers_that_cannot_be_looked_at_count_as_dead_after_a_day(storage: Storage) -> None:
    folder = Path(storage.path(ASIDE))
    elsewhere = f"{'ab' * 8}-{os.getpid()}-1"
    young = leave(folder, elsewhere, age=ABANDONED_AFTER - 600)
    unknown = leave(folder, f"{'0' * 16}-{os.getpid()}-0", age=ABANDONED_AFTER - 600)
    old = [leave(folder, elsewhere, age=ABANDONED_AFTER + 600) for _ in range(3)]
    assert storage.sweep() == 3
    assert young.exists() and unknown.exists() and not any(path.exists() for path in old)


def test_where_the_system_tells_nothing_of_processes_only_the_age_counts(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "readlink", failing_readlink)
    writer = Writer.here()
    young = leave(Path(storage.path(ASIDE)), f"{writer.machine}-{2**22 + 1}-0")
    leave(Path(storage.path(ASIDE)), str(writer), age=ABANDONED_AFTER + 600)
    assert storage.sweep() == 1
    assert young.exists()


def failing_readlink(path: Path) -> Path:
    raise OSError(errno.ENOENT, "no such file", str(path))


def test_files_of_others_are_not_swept(storage: Storage, temporary: Path) -> None:
    names = ["nightherd-notes.txt", f"nightherd-{uuid.uuid4().hex}", "other"]
    for folder in (temporary, Path(storage.path(ASIDE))):
        for name in names:
            leave(folder, "x").rename(folder / name)
            os.utime(folder / name, (0, 0))
    assert storage.sweep() == 0
    assert Storage.at("memory://swept").sweep() == 0
    assert sorted(path.name for path in temporary.iterdir()) == sorted(names)


def test_a_folder_that_cannot_be_swept_is_left_for_the_next_time(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(storage.path(ASIDE))
    leave(folder, f"{'ab' * 8}-1-1", age=ABANDONED_AFTER + 600)
    for owner, name in ((os, "scandir"), (Path, "unlink")):
        with monkeypatch.context() as patch:
            failing(owner, name, BROKEN)(patch, ALWAYS)
            assert storage.sweep() == 0
    assert storage.sweep() == 1


def test_where_there_is_nothing_a_sweep_does_nothing(storage: Storage) -> None:
    assert storage.sweep() == 0
    assert storage.list() == {}


def test_a_file_server_is_swept_too(tmp_path: Path, temporary: Path) -> None:
    storage = file_server(tmp_path / "out")
    here = Writer.here()
    folder = Path(storage.path(ASIDE))
    leave(folder, f"{here.machine}-{here.pid}-{here.started - 1}")
    leave(folder, f"{'ab' * 8}-1-1", age=ABANDONED_AFTER + 600)
    alive = leave(folder, f"{here}")
    assert storage.sweep() == 2
    assert [path.name for path in folder.iterdir()] == [alive.name]


def test_what_is_to_be_uploaded_lies_in_the_temporary_folder_which_is_swept_first(temporary: Path) -> None:
    here = Writer.here()
    dead = leave(temporary, f"{here.machine}-{here.pid}-{here.started - 1}")
    places: list[Path] = []
    Storage.at(f"memory://{uuid.uuid4().hex}").publish("x", lambda file: None, places.append)
    assert not dead.exists()
    assert [path.parent for path in places] == [temporary]
    assert list(temporary.iterdir()) == []
