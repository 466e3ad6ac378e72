"""Writers in processes of their own, to be killed, stopped, or set against each other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pipeline.files import local
from pipeline.files.storage import Storage

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["__main__", "s3fs", "tests.writers"])

SIZE = 1_000_000


def content(letter: str) -> bytes:
    """What the writer of this letter publishes."""
    return letter.encode() * SIZE


def die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def before(owner: Any, name: str) -> Callable[[], None]:
    """Dies instead of calling owner.name."""
    return lambda: setattr(owner, name, die)


def after(owner: Any, name: str) -> Callable[[], None]:
    """Dies when owner.name has returned."""

    def patch() -> None:
        original = getattr(owner, name)

        def dying(*args: Any, **kwargs: Any) -> NoReturn:
            original(*args, **kwargs)
            die()

        setattr(owner, name, dying)

    return patch


def around_call(method: str, *, done: bool) -> Callable[[], None]:
    """Dies before or after (`done`) the first request of this kind to S3."""

    def patch() -> None:
        from s3fs import S3FileSystem

        original = S3FileSystem._call_s3

        async def dying(self: Any, called: str, *args: Any, **kwargs: Any) -> Any:
            if called == method and not done:
                die()
            result = await original(self, called, *args, **kwargs)
            if called == method:
                die()
            return result

        S3FileSystem._call_s3 = dying

    return patch


def lower_part_size(set_: Callable[[Any, str, Any], None] = setattr) -> None:
    """Files of more than 400 KB are uploaded in parts."""
    from s3fs import core

    set_(core, "calculate_chunksize", lambda *_, **__: 200_000)


STEPS: dict[str, Callable[[], None] | None] = {
    "before a byte is written": None,
    "in mid-write": None,
    "before the file is synced": before(os, "fsync"),
    "after the file is synced": after(os, "fsync"),
    "in the check": None,
    "before the link": before(os, "link"),
    "after the link": after(os, "link"),
    "after the folder is synced": after(local, "sync_folder"),
    "before the old name goes": before(Path, "unlink"),
    "before the rename": before(Path, "replace"),
    "after the rename": after(Path, "replace"),
    "before the put": around_call("put_object", done=False),
    "after the put": around_call("put_object", done=True),
    "after the upload is begun": around_call("create_multipart_upload", done=True),
    "after a part": around_call("upload_part", done=True),
    "before the parts are joined": around_call("complete_multipart_upload", done=False),
    "after the parts are joined": around_call("complete_multipart_upload", done=True),
}


def die_at(step: str, url: str, environment: dict[str, str], overwrite: bool, in_parts: bool) -> None:
    """Publishes `x` below `responses`, and dies on the way."""
    os.environ.update(environment)
    tempfile.tempdir = None
    storage = Storage.at(url)
    if in_parts:
        lower_part_size()
    patch = STEPS[step]
    if patch:
        patch()

    def write(file: BinaryIO) -> None:
        if step == "before a byte is written":
            die()
        file.write(content("a")[: SIZE // 2])
        if step == "in mid-write":
            file.flush()
            die()
        file.write(content("a")[SIZE // 2 :])

    def check(path: Path) -> None:
        if step == "in the check":
            die()

    if overwrite:
        storage.overwrite("responses/x", write, check)
    else:
        storage.publish("responses/x", write, check)


def publish_slowly(url: str, environment: dict[str, str], half: Event, go: Event) -> None:
    """Publishes `x`, and waits in mid-write. Exits with 0 if it won."""
    os.environ.update(environment)
    tempfile.tempdir = None

    def write(file: BinaryIO) -> None:
        file.write(content("a")[: SIZE // 2])
        file.flush()
        half.set()
        assert go.wait(60)
        file.write(content("a")[SIZE // 2 :])

    raise SystemExit(0 if Storage.at(url).publish("x", write) else 1)


def race(
    letter: str, url: str, environment: dict[str, str], in_parts: bool, start: Barrier, won: Any
) -> None:
    """Publishes round after round at the same moment as the other writers, and counts its victories."""
    os.environ.update(environment)
    tempfile.tempdir = None
    storage = Storage.at(url)
    if in_parts:
        lower_part_size()
    for number in range(len(won)):
        # All have passed the first look for the name when the last has written.
        if storage.publish(
            f"{number}", lambda file: file.write(content(letter)) and None, lambda _: start.wait(60) and None
        ):
            with won.get_lock():
                won[number] += 1


def started(function: Callable[..., None], *arguments: object) -> ForkServerProcess:
    process = processes.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def ended(process: ForkServerProcess) -> int:
    """How a process ended: its exit status, or less than 0 for a signal."""
    process.join(60)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("it did not end")
    return process.exitcode
