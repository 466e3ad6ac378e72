"""Names that stand in a shard more than once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import InputError, RowError
from pipeline.input.csv_file import csv_column
from pipeline.input.jsonl import custom_ids
from pipeline.input.parquet import parquet_file, row_batches
from pipeline.input.shard import Chunk, ShardPlan
from pipeline.request.arrow_values import column_values
from pipeline.request.names import row_name

Hashes = NDArray[np.uint64]

COLUMN = "custom_id"
_READ_ROWS = 8192


class Repeats:
    """Which rows of a shard have a custom_id that an earlier row has.

    The names are read as far as they are asked for, 8 bytes of memory a row. Safe for several threads.
    """

    def __init__(self, plan: ShardPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._begin()

    def within(self, chunk: Chunk) -> frozenset[int]:
        """Those rows of a chunk, by number. Raises InputError naming a shard that is broken."""
        with self._lock:
            try:
                while self._read < chunk.stop and self._more():
                    pass
            except (pa.ArrowException, OSError) as error:
                self._begin()
                raise InputError(f"{chunk.shard}: {COLUMN} can't be read: {error}") from error
            return frozenset(self._found.intersection(range(chunk.start, chunk.stop)))

    def _begin(self) -> None:
        self._names, self._seen = _hashes(self._plan), Seen()
        self._read, self._found = 0, set[int]()

    def _more(self) -> bool:
        hashes = next(self._names, None)
        if hashes is None:
            self._read = self._plan.rows
            return False
        self._found.update((self._seen.add(hashes) + self._read).tolist())
        self._read += len(hashes)
        return True


@lru_cache(4)
def repeats_of(plan: ShardPlan) -> Repeats:
    """The repeats of a shard, shared by all in this process who read it."""
    return Repeats(plan)


class Seen:
    """A set of hashes that grows by many at a time. 0 stands for no name, and is never in it."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def add(self, hashes: Hashes) -> NDArray[np.int64]:
        """Adds them; the places of those that were there before, or stand earlier in `hashes`."""
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        repeated = np.zeros(len(hashes), bool)
        repeated[1:] = ordered[1:] == ordered[:-1]
        for run in self._runs:
            repeated |= _in(run, ordered)
        self._keep(ordered[~repeated & (ordered != 0)])
        return np.sort(order[repeated & (ordered != 0)])

    def _keep(self, run: Hashes) -> None:
        # Few runs, each as long as all that follow it: so each hash is sorted in few times.
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)


def _in(run: Hashes, hashes: Hashes) -> NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
    found: NDArray[np.bool_] = run[places] == hashes
    return found


def name_hash(value: Any) -> int:
    """64 bits that tell the names apart that values of custom_id mean; 0 for a value that names nothing."""
    try:
        name = row_name(value, COLUMN)
    except RowError:
        return 0
    if name is None:
        return 0
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) or 1


def _hashes(plan: ShardPlan) -> Iterator[Hashes]:
    """A hash of each row's custom_id, in order, many at a time; nothing where there is no such column."""
    if plan.shard.kind != "lines" and COLUMN not in plan.columns:
        return
    with plan.shard.open() as file:
        values = _values(plan, file)
        while names := list(islice(values, _READ_ROWS)):
            yield np.fromiter(map(name_hash, names), np.uint64, len(names))


def _values(plan: ShardPlan, file: pa.NativeFile) -> Iterator[Any]:
    if plan.shard.kind == "lines":
        return custom_ids(file)
    if plan.shard.kind == "csv":
        return csv_column(file, plan.shard.delimiter, plan.columns, COLUMN)
    return _column(file)


def _column(file: pa.NativeFile) -> Iterator[Any]:
    for batch in row_batches(parquet_file(file, buffer_size=1 << 20), _READ_ROWS, [COLUMN]):
        yield from column_values(pa.Table.from_batches([batch]).column(0), COLUMN)
