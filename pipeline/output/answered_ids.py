"""The ids that other outputs have an answer to, as hashes: rows of these ids are skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.output.committed import CommittedRows
from pipeline.tally import ALREADY_ANSWERED

_ROWS = 8192
_BYTES = 16
_COLUMNS = ["custom_id", "status_code"]

Hashes = np.ndarray[Any, np.dtype[np.bytes_]]


@dataclass(frozen=True)
class AnsweredIds:
    """hashes: 16 bytes of each id, in order; sixteen bytes of memory a row, and no more."""

    hashes: Hashes = field(default_factory=lambda: np.empty(0, f"S{_BYTES}"))

    @classmethod
    def of(cls, output_urls: Iterable[str]) -> AnsweredIds:
        """The ids of the rows with status 200 in outputs of nightherd's, finished or not.

        Raises OutputError where one is none, or damaged.
        """
        found = [_hashes(names) for url in output_urls for names in _answered(CommittedRows.at(url))]
        if not found:
            return cls()
        hashes = np.concatenate(found)
        hashes.sort()
        return cls(hashes)

    def known(self, names: Sequence[str]) -> list[bool]:
        """Whether each of the names is one of the ids."""
        if not len(self.hashes) or not names:
            return [False] * len(names)
        wanted = _hashes(names)
        places = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        alike: list[bool] = (self.hashes[places] == wanted).tolist()
        return alike


def _answered(rows: CommittedRows) -> Iterator[list[str]]:
    for shard in rows.shards:
        for _, table in rows.tables(shard, lambda schema: _COLUMNS, _ROWS):
            good = table.filter(pc.equal(table.column("status_code"), 200))
            yield good.column("custom_id").to_pylist()


def skipped(table: pa.Table) -> Any:
    """Which rows of a response table were skipped."""
    return pc.equal(table.column("status_code"), ALREADY_ANSWERED)


def _hashes(names: Sequence[str]) -> Hashes:
    data = b"".join(blake2b(name.encode("utf-8", "replace"), digest_size=_BYTES).digest() for name in names)
    return np.frombuffer(data, f"S{_BYTES}")
