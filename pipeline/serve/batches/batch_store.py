"""All batches: their marks, and which of them are open."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import pyarrow as pa

from pipeline.files.storage import Storage
from pipeline.output.records import PROGRESS
from pipeline.serve.batches import marks
from pipeline.serve.batches.batch import Batch, BatchRequest, Outcome
from pipeline.serve.batches.file_store import FileStore
from pipeline.serve.batches.ids import BATCH, folder_of, is_id
from pipeline.serve.batches.pages import Order, Page, page_of
from pipeline.tally import Tally

OPEN = "open"
_MARKS = ("request", "validated", "ending", "finished")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a batch lies. folder: its owner's."""

    id: str
    folder: str

    @property
    def path(self) -> str:
        return f"owners/{self.folder}/batches/{self.id}"

    @property
    def open(self) -> str:
        """A mark that is there as long as something is left to do."""
        return f"{OPEN}/{self.folder}/{self.id}"

    @property
    def input(self) -> str:
        """The batch's own copy of its input file, which the client may remove at any time."""
        return f"{self.path}/input.jsonl"

    @property
    def tries(self) -> str:
        """A mark for each try of a row on probation."""
        return f"{self.path}/tries"

    @property
    def lease(self) -> str:
        return f"{self.path}/lease"

    @property
    def out(self) -> str:
        """The outputs of its job, one for each fingerprint."""
        return f"{self.path}/out"


@dataclass(frozen=True, slots=True)
class BatchStore:
    """Methods raise StorageError."""

    data: Storage
    clock: Clock = time.time

    @staticmethod
    def place(owner: str, id: str) -> Place:
        return Place(id, folder_of(owner))

    def create(self, request: BatchRequest) -> Batch:
        """Raises FileNotFoundError where the input file is gone."""
        place, files = self.place(request.owner, request.id), FileStore.of(self.data, request.owner)
        marks.put(self.data, place.open, {})
        with files.open(request.input_file_id) as content:
            self.data.publish(place.input, partial(_copy, content))
        marks.put(self.data, f"{place.path}/request.json", request.record)
        return Batch(request)

    def find(self, owner: str, id: str) -> Batch | None:
        """None where the owner has no such batch."""
        return self.load(self.place(owner, id)) if is_id(BATCH, id) else None

    def load(self, place: Place) -> Batch | None:
        request, validated, ending, finished = (
            marks.read(self.data, f"{place.path}/{name}.json") for name in _MARKS
        )
        if request is None:
            return None
        done = self._done(place) if validated and not finished else Tally()
        return Batch(BatchRequest(**request), validated, ending, finished, done)

    def page(self, owner: str, *, limit: int, after: str | None = None, order: Order = "desc") -> Page[Batch]:
        start = f"owners/{folder_of(owner)}/batches"
        names = (name.removeprefix(f"{start}/").split("/") for name in self.data.list(start))
        ids = [id for id, *rest in names if rest == ["request.json"]]
        return page_of(ids, lambda id: self.find(owner, id), limit=limit, after=after, order=order)

    def open(self) -> list[Place]:
        """The batches that are not finished, of all owners, the oldest first."""
        places = (name.split("/") for name in self.data.list(OPEN))
        return sorted(Place(id, folder) for _, folder, id in places)

    def validate(self, place: Place, total: int, model: str) -> None:
        self._mark(place, "validated", total=total, model=model)

    def end(self, place: Place, outcome: Outcome, **counts: int) -> Outcome:
        """Decides how a batch ends; what was decided before stands, and is returned.

        counts: completed and failed requests, where they are known."""
        self._mark(place, "ending", outcome=outcome, **counts)
        ending = marks.read(self.data, f"{place.path}/ending.json") or {}
        found: Outcome = ending.get("outcome", outcome)
        return found

    def ending(self, place: Place) -> bool:
        """Whether that is decided."""
        return self.data.exists(f"{place.path}/ending.json")

    def finish(self, place: Place, **facts: object) -> None:
        """All of its results are written."""
        self._mark(place, "finished", **facts)
        self.close(place)

    def close(self, place: Place) -> None:
        """Clears what a finished batch needs no more."""
        self.data.remove_tree(place.out)
        self.data.remove(place.input)
        self.data.remove_tree(place.tries)
        self.data.remove_tree(place.lease)
        self.data.remove(place.open)

    def drop(self, place: Place) -> None:
        """Clears what is left of a batch whose creation was cut off."""
        self.data.remove_tree(place.path)
        self.data.remove(place.open)

    def _mark(self, place: Place, name: str, **facts: object) -> None:
        marks.put(self.data, f"{place.path}/{name}.json", {"at": int(self.clock()), **facts})

    def _done(self, place: Place) -> Tally:
        """What its job, under way, has told of its progress."""
        names = [name for name in self.data.list(place.out) if name.endswith(f"/{PROGRESS}")]
        found = [marks.read(self.data, name) for name in names]
        return max((Tally.from_dict(f["tally"]) for f in found if f), key=lambda t: t.rows, default=Tally())


def _copy(content: pa.NativeFile, file: BinaryIO) -> None:
    content.seek(0)
    shutil.copyfileobj(content, file, 1 << 20)
