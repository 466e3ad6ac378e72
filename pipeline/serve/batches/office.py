"""The files and batches of a service: what the routes ask, and who does the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files.storage import Storage
from pipeline.serve.batches import marks
from pipeline.serve.batches.batch_job import Engine
from pipeline.serve.batches.batch_store import BatchStore
from pipeline.serve.batches.file_store import FileStore
from pipeline.serve.batches.keeper import Keeper
from pipeline.serve.batches.upload import MOST_BYTES
from pipeline.serve.batches.work import Count, Work

LAYOUT = 1
"""Of the folder. A change of it needs another number."""


class Office:
    """All of its state lies in one folder, which the offices of several processes may share."""

    def __init__(
        self, data: str, *, clock: Callable[[], float] = time.time, most_bytes: int = MOST_BYTES
    ) -> None:
        """data: a folder or fsspec URL; it need not exist. most_bytes: of a file. Raises StorageError."""
        self.data = Storage.at(data if "://" in data else str(Path(data).expanduser().absolute()))
        self.store = BatchStore(self.data, clock)
        self.clock = clock
        self.most_bytes = most_bytes
        self._keeper: Keeper | None = None

    def files(self, owner: str) -> FileStore:
        return FileStore.of(self.data, owner, self.clock)

    def open(self, engine: Engine, count: Count = lambda owner, tally: None) -> None:
        """From now on, batches are worked on, those that others have left first. count: as in `Work`.
        Raises StorageError where nothing can be written, ConfigError where others have written."""
        marks.put(self.data, "nightherd.json", {"layout": LAYOUT})
        if (marks.read(self.data, "nightherd.json") or {}).get("layout") != LAYOUT:
            raise ConfigError(f"--data {self.data.url}: another version of nightherd has written it")
        self.data.sweep()
        self._keeper = Keeper(self.store, Work(self.store, engine, count))
        self._keeper.start()

    def wake(self) -> None:
        """A batch is new, or is cancelled: don't wait."""
        if self._keeper:
            self._keeper.wake()

    def close(self) -> None:
        """What is answered is kept, and other processes, or the next one, go on."""
        if self._keeper:
            self._keeper.close()
