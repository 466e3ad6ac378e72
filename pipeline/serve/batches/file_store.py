"""The files of one owner."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from pipeline.files.storage import Storage
from pipeline.serve.batches import marks
from pipeline.serve.batches.ids import FILE, folder_of, is_id
from pipeline.serve.batches.pages import Order, Page, page_of
from pipeline.serve.batches.stored_file import Purpose, StoredFile

Clock = Callable[[], float]
EXPIRING = "expiring"
"""Has an empty mark for each file that expires: its name says when, and whose it is."""


@dataclass(frozen=True, slots=True)
class FileStore:
    """Of a file, the record is written last and removed first: without it, there is no such file.

    folder: the owner's, as `folder_of`. Methods raise StorageError.
    """

    data: Storage
    folder: str
    clock: Clock = time.time

    @classmethod
    def of(cls, data: Storage, owner: str, clock: Clock = time.time) -> FileStore:
        return cls(data, folder_of(owner), clock)

    def add(
        self,
        id: str,
        filename: str,
        purpose: Purpose,
        write: Callable[[BinaryIO], None],
        *,
        at: float,
        keep: int | None = None,
    ) -> StoredFile:
        """Keeps what `write` writes. What was kept under this id before stands.

        at: seconds since 1970. keep: seconds until it expires; None for ever."""
        name = self._content(id)
        self.data.publish(name, write)
        ends = int(at) + keep if keep is not None else None
        file = StoredFile(id, filename, purpose, self.data.entry(name).size, int(at), ends)
        if ends is not None:
            marks.put(self.data, f"{EXPIRING}/{ends}/{self.folder}/{id}", {})
        marks.put(self.data, self._record(id), file.record)
        return file

    def find(self, id: str) -> StoredFile | None:
        """None where the owner has no such file, or has it no more."""
        record = marks.read(self.data, self._record(id)) if is_id(FILE, id) else None
        file = StoredFile(**record) if record else None
        if file and file.expires_at is not None and file.expires_at <= self.clock():
            self.remove(id)
            return None
        return file

    def page(
        self, *, limit: int, after: str | None = None, order: Order = "desc", purpose: Purpose | None = None
    ) -> Page[StoredFile]:
        def load(id: str) -> StoredFile | None:
            file = self.find(id)
            return file if file and purpose in (None, file.purpose) else None

        start = f"owners/{self.folder}/files"
        names = (name.removeprefix(f"{start}/").split("/") for name in self.data.list(start))
        ids = [id for id, *rest in names if rest == ["meta.json"]]
        return page_of(ids, load, limit=limit, after=after, order=order)

    def open(self, id: str) -> pa.NativeFile:
        """Its content; the caller closes it. Raises FileNotFoundError where it is gone."""
        return self.data.open_input(self._content(id))

    def remove(self, id: str) -> None:
        """None there is fine."""
        if is_id(FILE, id):
            self.data.remove(self._record(id))
            self.data.remove_tree(f"owners/{self.folder}/files/{id}")

    def _content(self, id: str) -> str:
        return f"owners/{self.folder}/files/{id}/content.jsonl"

    def _record(self, id: str) -> str:
        return f"owners/{self.folder}/files/{id}/meta.json"


def remove_expired(data: Storage, now: float) -> None:
    """Removes the files, of all owners, whose time is over. Raises StorageError."""
    for name in data.list(EXPIRING):
        _, ends, folder, id = name.split("/")
        if int(ends) <= now:
            FileStore(data, folder).remove(id)
            data.remove(name)
