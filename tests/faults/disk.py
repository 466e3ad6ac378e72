"""Changes to a folder just before this process makes them, by Python's audit events; disks that fail."""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.answer_log import AnswerLog

# Where the events' arguments hold paths, and the descriptors of the folders that these are relative to.
CHANGES = {
    "os.mkdir": ((0, 2),),
    "os.link": ((0, 2), (1, 3)),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
}


def on_change(folder: str, act: Callable[[str], None]) -> None:
    """From now on, for good, calls `act` before each change below `folder`: act("os.link job.json").

    To open a file for writing is a change, "open NAME". What `act` raises, the change raises."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        path = _changed(event, args)
        if path.startswith(folder):
            act(f"{event} {path.rpartition('/')[2]}")

    sys.addaudithook(hook)


def _changed(event: str, args: tuple[Any, ...]) -> str:
    """The path that an event is about to change; where a link or a rename leads; "" for other events."""
    if event == "open":
        writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return os.fsdecode(args[0]) if writes and isinstance(args[0], str | bytes) else ""
    if event not in CHANGES:
        return ""
    path, descriptor = (args[place] for place in CHANGES[event][-1])
    name = os.fsdecode(path)
    return name if descriptor < 0 else str(Path(f"/proc/self/fd/{descriptor}").readlink() / name)


@dataclass(frozen=True)
class Disk:
    """error: the name of an errno ("EIO"), with this probability at each change to the output's folder."""

    error: str = ""
    probability: float = 0.0
    seed: int = 0

    def install(self, folder: str, log: AnswerLog) -> None:
        if not self.error:
            return
        number, chance = getattr(errno, self.error), random.Random(f"{self.seed} {os.getpid()}")

        def fail(change: str) -> None:
            # Cleaning up goes on: what is asked here is whether writing fails well.
            cleans = change.startswith(("os.remove", "os.rmdir"))
            if not cleans and chance.random() < self.probability:
                log.write("failed", change=change)
                raise OSError(number, os.strerror(number), folder)

        on_change(folder, fail)
