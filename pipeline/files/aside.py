"""Files being written: their names tell who writes them, so that what the dead left can be swept."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a file whose writer can't be looked at has none."""

_NAME = re.compile(r"nightherd-(?P<machine>[0-9a-f]{16})-(?P<pid>\d+)-(?P<started>\d+)-[0-9a-f]{32}")
_ELSEWHERE = "0" * 16


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """A new name in a local folder that no reader looks at; what is left there goes at the end."""
    path = folder / f"nightherd-{Writer.here()}-{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        # One that can't be removed now is swept when this process has ended.
        with suppress(OSError):
            path.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Removes what dead writers left in a local folder; how many files that were."""
    return sum(_removed(path) for path in folder.glob("nightherd-*"))


def _removed(path: Path) -> bool:
    # Another sweeper may be faster, or the file may be another user's.
    with suppress(OSError):
        if abandoned(path.name, path.stat().st_mtime):
            path.unlink()
            return True
    return False


@cache
def temporary_folder() -> Path:
    """This machine's folder for what is yet to be uploaded, rid of what other processes left there."""
    folder = Path(tempfile.gettempdir())
    sweep(folder)
    return folder


def abandoned(name: str, changed: float | None) -> bool:
    """Whether nobody writes the file of this name any more. changed: when it last did, in Unix time."""
    found = _NAME.fullmatch(name)
    if not found:
        return False
    writer = Writer(found["machine"], int(found["pid"]), int(found["started"]))
    if writer.is_near:
        return not writer.is_alive
    return changed is not None and time.time() - changed > ABANDONED_AFTER


@dataclass(frozen=True, slots=True)
class Writer:
    """A process. machine: where its pid counts, from one start of the machine to the next.

    started: in the kernel's ticks; it tells processes apart that bore the same pid in turn.
    """

    machine: str
    pid: int
    started: int

    @classmethod
    def here(cls) -> Writer:
        """This process."""
        status = _status(os.getpid())
        return cls(_machine(), os.getpid(), status[1] if status else 0)

    def __str__(self) -> str:
        return f"{self.machine}-{self.pid}-{self.started}"

    @property
    def is_near(self) -> bool:
        """Whether this process could see it."""
        return self.machine != _ELSEWHERE and self.machine == _machine()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs, or could go on to, as a stopped process does."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        status = _status(self.pid)
        return status is None or (status[0] not in "ZX" and status[1] == self.started)


def _machine() -> str:
    """This start of this machine and this space of pids; containers on one machine have several of these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.blake2b(f"{boot}{_pid_space()}".encode(), digest_size=8).hexdigest()
    except OSError:
        return _ELSEWHERE


def _pid_space() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _status(pid: int) -> tuple[str, int] | None:
    """A process's state, a letter, and its start; None where the system doesn't tell."""
    try:
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
