"""A local disk on which every operation is a step of the simulation, at which faults may strike."""

from __future__ import annotations

import builtins
import io
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import pyarrow as pa

import pipeline.output.records
from tests.soak.gate import Gate
from tests.soak.world import BEGINNING

_TARGETS = {"link": 1, "rename": 1, "replace": 1, "unlink": 0, "remove": 0, "mkdir": 0, "rmdir": 0, "stat": 0}
"""Functions of `os`, and which of their arguments names what is looked at or changed."""
_PIDS = 1_000_000_000
"""Above any real one."""


class Disk:
    """The folder `root`, for the processes of a world; other threads and folders notice nothing."""

    def __init__(self, root: Path, gate: Gate) -> None:
        self._root, self._gate, self._world = f"{root}/", gate, gate.world

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Inside, the simulated processes work on this disk, by the simulated clock."""
        state = random.getstate()
        random.seed(self._world.random.random())
        try:
            with ExitStack() as stack:
                for place, name, value in self._substitutes():
                    stack.enter_context(patch.object(place, name, value))
                yield
        finally:
            random.setstate(state)

    def perform(self, operation: str, path: str, action: Callable[[], Any]) -> Any:
        """An operation, and what befalls it."""
        return self._gate.perform(operation, path.removeprefix(self._root), action)

    @property
    def is_for_the_dead(self) -> bool:
        """Whether the caller's process is dead."""
        return self._world.current.process.dead

    def concerns(self, path: object) -> bool:
        """Whether a path is on this disk. Folders are emptied by names relative to an open one."""
        if not self._gate.is_for_caller:
            return False
        if isinstance(path, int):
            return True
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        return text.startswith(self._root) or not text.startswith("/")

    def _substitutes(self) -> Iterator[tuple[Any, str, Any]]:
        for name, place in _TARGETS.items():
            yield os, name, self._watched(name, getattr(os, name), place)
        yield os, "scandir", self._sorted(os.scandir)
        yield os, "fsync", self._synced(os.fsync)
        yield os, "getpid", self._pid(os.getpid)
        yield os, "kill", self._signal(os.kill)
        yield io, "open", self._opened(io.open)
        yield builtins, "open", self._opened(builtins.open)
        yield pa, "OSFile", self._read(pa.OSFile)
        yield time, "sleep", self._slept(time.sleep)
        yield time, "time", self._clock(time.time, BEGINNING)
        yield time, "monotonic", self._clock(time.monotonic, 0.0)
        yield uuid, "uuid4", self._name_drawn(uuid.uuid4)
        yield pipeline.output.records, "ThreadPoolExecutor", _OneByOne

    def _watched(self, name: str, real: Callable[..., Any], place: int) -> Callable[..., Any]:
        operation = {"rename": "replace", "remove": "unlink"}.get(name, name)

        def function(*args: Any, **options: Any) -> Any:
            path = args[place] if len(args) > place else None
            if not self.concerns(path) or isinstance(path, int):
                return real(*args, **options)
            return self.perform(operation, os.fspath(path), lambda: real(*args, **options))

        return function

    def _sorted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def scandir(path: Any = ".") -> Any:
            if not self.concerns(path):
                return real(path)
            label = "" if isinstance(path, int) else os.fspath(path)
            return self.perform("list", label, lambda: _Listing(real(path)))

        return scandir

    def _synced(self, real: Callable[[int], None]) -> Callable[[int], None]:
        # Nothing is lost by a simulated death that a sync would save, and a real sync takes long.
        def fsync(file: int) -> None:
            if self.concerns(file):
                self.perform("fsync", "", lambda: None)
            else:
                real(file)

        return fsync

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def open_file(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if not self.concerns(file) or isinstance(file, int) or "b" not in mode:
                return real(file, mode, *args, **options)
            if mode == "rb":
                return self.perform("read", os.fspath(file), lambda: _File(file, mode, self))
            return self.perform("write", os.fspath(file), lambda: io.BufferedWriter(_File(file, mode, self)))

        return open_file

    def _read(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def os_file(path: str, mode: str = "r", **options: Any) -> Any:
            if not self.concerns(path):
                return real(path, mode, **options)
            return self.perform("read", path, lambda: real(path, mode, **options))

        return os_file

    def _slept(self, real: Callable[[float], None]) -> Callable[[float], None]:
        def sleep(seconds: float) -> None:
            if self._world.here is None:
                real(seconds)
            else:
                self._world.sleep(seconds)

        return sleep

    def _clock(self, real: Callable[[], float], beginning: float) -> Callable[[], float]:
        return lambda: real() if self._world.here is None else beginning + self._world.now

    def _pid(self, real: Callable[[], int]) -> Callable[[], int]:
        return lambda: _PIDS + here.number if (here := self._world.here) else real()

    def _signal(self, real: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def kill(pid: int, number: int) -> None:
            if pid < _PIDS:
                real(pid, number)
                return
            assert number == 0, signal.Signals(number).name
            if self._world.processes[pid - _PIDS].dead:
                raise ProcessLookupError(pid)

        return kill

    def _name_drawn(self, real: Callable[[], uuid.UUID]) -> Callable[[], uuid.UUID]:
        return lambda: real() if self._world.here is None else uuid.UUID(int=random.getrandbits(128))


class _File(io.FileIO):
    """An open file whose reads and writes may fail half-way. What a dead process writes goes nowhere."""

    def __init__(self, path: Any, mode: str, disk: Disk) -> None:
        super().__init__(path, mode)
        self._path, self._disk = os.fspath(path), disk

    def read(self, size: int | None = -1) -> bytes:
        return self._disk.perform("read on", self._path, lambda: super(_File, self).read(size))

    def readinto(self, buffer: Any) -> int | None:
        return self._disk.perform("read on", self._path, lambda: super(_File, self).readinto(buffer))

    def write(self, data: Any) -> int:
        if self._disk.is_for_the_dead:
            return len(data)
        try:
            return self._disk.perform("write on", self._path, lambda: super(_File, self).write(data))
        except OSError:
            # A full disk takes what it can.
            super().write(memoryview(data)[: len(data) // 2])
            raise


class _Listing:
    """What os.scandir finds, in the order of names, which doesn't differ from disk to disk."""

    def __init__(self, found: Any) -> None:
        with found:
            self._entries = iter(sorted(found, key=lambda entry: entry.name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> os.DirEntry[str]:
        return next(self._entries)

    def close(self) -> None: ...


class _OneByOne:
    """Stands in for a thread pool, whose threads would run when they like."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, function: Callable[..., Any], *items: Any) -> Iterator[Any]:
        return iter([function(*item) for item in zip(*items, strict=True)])
