"""Pipelines that are broken on purpose: the soak has to find out each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

import pipeline.output.commits
from pipeline.input.shards import Chunk, ShardPlan
from pipeline.job.assignment import Assignment
from pipeline.job.coordinator import Coordinator
from pipeline.output.assembly import write_table
from pipeline.output.commits import Commits
from pipeline.output.footer import Footer
from pipeline.output.manifest import Manifest

Tables = Callable[[], Iterable[pa.Table]]


def _overwrite(manifest: Manifest, name: str, tables: Tables, footer: Footer) -> bool:
    manifest.output.overwrite(name, lambda file: write_table(file, tables(), footer))
    return True


def _write_in_place(manifest: Manifest, name: str, tables: Tables, footer: Footer) -> bool:
    if not manifest.output.local:
        return _overwrite(manifest, name, tables, footer)
    path = Path(manifest.output.path(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_table(file, tables(), footer)
    return True


def _add_all(coordinator: Coordinator, plan: ShardPlan, done: Iterable[Chunk] = ()) -> bool:
    return _add(coordinator, plan)


def _condemn(coordinator: Coordinator, worker: str, assignment: Assignment) -> Iterator[Assignment]:
    yield replace(assignment, alone=True, condemned=True)


_add = Coordinator.add

MUTATIONS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "the last to publish wins": lambda: patch.object(Manifest, "_publish", _overwrite),
    "files grow under their final names": lambda: patch.object(Manifest, "_publish", _write_in_place),
    "what a dead worker left undone is forgotten": lambda: patch.object(
        Coordinator, "_requeue", lambda *_: None
    ),
    "what a dead worker left undone counts as done": lambda: patch.object(Coordinator, "lost", _settle_all),
    "done chunks are forgotten at a resume": lambda: patch.object(Coordinator, "add", _add_all),
    "the neighbours of a poison row are condemned": lambda: patch.object(Coordinator, "_suspected", _condemn),
    "answers to another version of a shard count": lambda: patch.object(
        Commits, "_is_own_version", lambda *_: True
    ),
    "overlapping chunks are put together": lambda: patch.object(
        pipeline.output.commits, "cover", lambda chunks: sorted(set(chunks))
    ),
}
"""What is broken, and a context in which it is."""


def _settle_all(coordinator: Coordinator, worker: str, *_: object) -> list[ShardPlan]:
    held = coordinator._held.pop(worker, {}).values()
    return [plan for assignment in held for plan in coordinator.backlog.settle(assignment.chunks)]
