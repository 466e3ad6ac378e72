"""Which process works on a batch: one at a time, as long as it shows that it is alive."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.files.aside import Writer
from pipeline.files.storage import Storage
from pipeline.output.records import write_record
from pipeline.serve.batches import marks

SECONDS = 15.0
"""A lease that isn't renewed for so long is over."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The `number`-th of a folder. Only its holder writes its file, and whoever comes next makes a new one:
    so two never hold one lease, whatever their clocks say. What a late one still commits does no harm: of
    two commits, the first counts.

    until: seconds since 1970. deaths: of holders that died of late, one after the other.
    """

    data: Storage
    folder: str
    number: int
    until: float = 0.0
    deaths: int = 0

    def renewed(self, now: float) -> Lease | None:
        """None where another process has taken over. Raises StorageError."""
        if self.data.exists(_name(self.folder, self.number + 1)):
            return None
        lease = replace(self, until=now + SECONDS)
        self.data.overwrite(self.name, lambda file: write_record(file, lease._record))
        return lease

    def release(self) -> None:
        """Whoever wants it may have the next one at once. Raises StorageError."""
        over = replace(self, until=0.0)
        self.data.overwrite(self.name, lambda file: write_record(file, over._record))

    @property
    def name(self) -> str:
        return _name(self.folder, self.number)

    @property
    def _record(self) -> marks.Record:
        return {"until": self.until, "deaths": self.deaths, "holder": _holder()}


def take(data: Storage, folder: str, clock: Callable[[], float] = time.time) -> Lease | None:
    """The next lease of a folder; None where a process that lives holds one. Raises StorageError."""
    numbers = [int(name.rpartition("/")[2].removesuffix(".json")) for name in data.list(folder)]
    last = max(numbers, default=0)
    record = marks.read(data, _name(folder, last)) if last else None
    if record and not _is_over(record, clock()):
        return None
    # One that was released was not held by a process that died.
    deaths = record["deaths"] + 1 if record and record["until"] else 0
    lease = Lease(data, folder, last + 1, clock() + SECONDS, deaths)
    if not marks.put(data, _name(folder, lease.number), lease._record):
        return None
    for number in numbers:
        data.remove(_name(folder, number))
    return lease


def _is_over(record: marks.Record, now: float) -> bool:
    """Nobody has to wait for a process that can be seen to be gone."""
    if record["until"] < now:
        return True
    writer = Writer(*record["holder"])
    return writer.is_near and not writer.is_alive


def _holder() -> list[object]:
    here = Writer.here()
    return [here.machine, here.pid, here.started]


def _name(folder: str, number: int) -> str:
    return f"{folder}/{number}.json"
