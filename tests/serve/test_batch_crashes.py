"""A batch whose process dies at any of its steps ends as if nothing had happened."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine.engine import Engine as Generating
from pipeline.engine.fakes.fake import FakeModel
from pipeline.files.storage import Storage
from pipeline.serve.batches.batch import BatchRequest, Outcome
from pipeline.serve.batches.batch_job import Engine
from pipeline.serve.batches.batch_store import BatchStore, Place
from pipeline.serve.batches.file_store import FileStore
from pipeline.serve.batches.ids import BATCH, FILE, new_id
from pipeline.serve.batches.keeper import Keeper
from pipeline.serve.batches.work import Work
from tests.serve.batching import CHATS, JOB, chats, jsonl, line
from tests.serve.live import generative, until

STEPS = ("_put", "remove", "remove_tree")


class Dead(BaseException):
    """Nothing catches it, as nothing catches a process's end."""


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, at: int, before: bool) -> Iterator[Callable[[], int]]:
    """The `at`-th change of the storage is the last one; it is not made any more where `before`."""
    steps = itertools.count()
    reached = 0

    def wrapped(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(self: Storage, *args: Any, **options: Any) -> Any:
            nonlocal reached
            reached = next(steps)
            if reached > at or (reached == at and before):
                raise Dead
            done = change(self, *args, **options)
            if reached == at:
                raise Dead
            return done

        return changed

    with monkeypatch.context() as patched:
        for name in STEPS:
            patched.setattr(Storage, name, wrapped(getattr(Storage, name)))
        yield lambda: reached


class Case:
    def __init__(self, folder: Path, ending: Outcome | None, *, created: bool = True) -> None:
        model = FakeModel(max_sequences=9, context=4096, cells=16384)
        self.service = generative(model, Generating(model, slots=4))
        self.store = BatchStore(Storage.at(str(folder)))
        self.work = Work(self.store, Engine(self.service, JOB, lambda: "0" * 64))
        self.files = FileStore.of(self.store.data, "ann")
        content = jsonl([*chats(5), line("hot", temperature=9)])
        file = self.files.add(new_id(FILE, 1), "f", "batch", lambda f: f.write(content) and None, at=1)
        self.asked = BatchRequest(new_id(BATCH, 1), "ann", CHATS, file.id, "24h", 1, 2**40)
        self.place: Place = self.store.place("ann", self.asked.id)
        if not created:
            return
        self.store.create(self.asked)
        if ending:
            self.store.validate(self.place, 6, "org/fake")
            self.store.end(self.place, ending)

    def body(self) -> dict[str, Any]:
        batch = self.store.load(self.place)
        assert batch
        return batch.body

    def lines(self, id: str | None) -> list[dict[str, Any]]:
        if id is None:
            return []
        with self.files.open(id) as file:
            return [json.loads(text) for text in file.read().splitlines()]


@pytest.mark.parametrize("before", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ending", [None, "cancelled"])
def test_a_process_may_die_at_any_step(tmp_path, monkeypatch, ending, before):
    for at in itertools.count():
        case = Case(tmp_path / str(at), ending)
        died = False
        with dying(monkeypatch, at, before):
            try:
                case.work.carry(case.place, lambda: False)
            except Dead:
                died = True
        case.work.carry(case.place, lambda: False)
        case.store.close(case.place)
        body = case.body()
        good, bad = case.lines(body["output_file_id"]), case.lines(body["error_file_id"])
        assert body["status"] == (ending or "completed")
        assert body["request_counts"] == {"total": 6, "completed": len(good), "failed": 0 if ending else 1}
        names = sorted(line["custom_id"] for line in [*good, *bad])
        assert names == sorted(["hot", *(f"row-{number}" for number in range(5))])
        assert len(good) == (0 if ending else 5)
        assert case.store.open() == [] and not list((tmp_path / str(at)).rglob("*.parquet"))
        case.service.close()
        if not died:
            break
    assert at > (5 if ending else 10)


@pytest.mark.parametrize("before", [True, False])
def test_a_creation_that_is_cut_off_leaves_nothing(tmp_path, monkeypatch, before):
    for at in itertools.count():
        case = Case(tmp_path / str(at), None, created=False)
        died = False
        with dying(monkeypatch, at, before):
            try:
                case.store.create(case.asked)
            except Dead:
                died = True
        created = case.store.find("ann", case.asked.id) is not None
        keeper = Keeper(case.store, case.work)
        keeper.start()
        try:
            # It was begun long ago, by its id.
            until(lambda case=case: case.store.open() == [], 20)
        finally:
            keeper.close()
            case.service.close()
        assert (case.store.find("ann", case.asked.id) is not None) == created
        assert not created or case.body()["status"] == "completed"
        assert not list((tmp_path / str(at)).rglob("input.jsonl"))
        if not died:
            break
    assert at == 3
