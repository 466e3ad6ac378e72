"""Drafts: the answered rows of chunks under way, so that a job that is stopped or dies loses little.

A worker keeps one file for each of its chunks, replaces it every few seconds, and removes it when the chunk
is committed. A draft is no commit. Whoever finds one that was left behind commits its rows as chunks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import NightherdError, OutputError
from pipeline.input.shards import Chunk
from pipeline.output.commits import Commits
from pipeline.output.footer import KEY, count
from pipeline.output.records import DRAFT, RECORD, WORK, answers_of


class _Finished(NightherdError):
    """The work folder is gone: the job is finished."""


@dataclass(frozen=True)
class Drafts:
    """The drafts of a job in its output folder. Safe for many processes at once."""

    commits: Commits

    def keep(self, chunk: Chunk, numbers: Sequence[int], table: pa.Table, retry: int = 0) -> None:
        """Keeps answers of a chunk under way, in place of those kept before.

        numbers: which rows of the shard they are, ascending. table: the answers, in that order.
        """
        note = self._origin(chunk.shard) | {"numbers": list(numbers)}
        marked = table.replace_schema_metadata({KEY: json.dumps(note)})

        def write(file: BinaryIO) -> None:
            if not self.commits.output.exists(RECORD):
                raise _Finished
            pq.write_table(marked, file, compression="zstd", write_page_checksum=True)

        name = self.commits.draft_name(chunk, retry)
        with suppress(_Finished):
            self.commits.output.overwrite(name, write)
        # A worker that slept through the end of the job leaves nothing behind.
        if not self.commits.output.exists(RECORD):
            self.commits.output.remove(name)
            self.commits.output.remove_empty(WORK)

    def drop(self, chunk: Chunk, retry: int = 0) -> None:
        """Removes a chunk's draft; none there is fine."""
        self.commits.output.remove(self.commits.draft_name(chunk, retry))

    def commit(self, chunk: Chunk, retry: int = 0) -> None:
        """Commits what a chunk's draft holds as chunks of their own; none there is fine."""
        name = self.commits.draft_name(chunk, retry)
        with suppress(FileNotFoundError):
            numbers, table = self._read(name, chunk.shard)
            for places in _runs(numbers):
                part = Chunk(chunk.shard, numbers[places.start], numbers[places.stop - 1] + 1)
                answers = table.slice(places.start, len(places))
                self.commits.commit_chunk(part, answers, count(answers, chunk.shard), retry)
            self.commits.output.remove(name)

    def commit_all(self, shard: str, retry: int = 0) -> None:
        """The same for all drafts of a shard."""
        for name in self.commits.output.list(self.commits.chunk_folder(shard, retry)):
            if name.endswith(DRAFT):
                start, stop = map(int, PurePosixPath(name).stem.split("-"))
                self.commit(Chunk(shard, start, stop), retry)

    def _origin(self, shard: str) -> dict[str, Any]:
        prints = self.commits.fingerprint
        return {"fingerprint": prints.digest, "source": prints.source(shard)}

    def _read(self, name: str, shard: str) -> tuple[list[int], pa.Table]:
        """A draft that is another job's, or broken, holds nothing: its rows are answered again."""
        try:
            with answers_of(self.commits.output, name) as parquet:
                table = parquet.read(use_threads=False)
            note: dict[str, Any] = json.loads((table.schema.metadata or {})[KEY])
            numbers = note.pop("numbers")
            if note == self._origin(shard) and len(numbers) == len(table):
                return numbers, table.replace_schema_metadata(None)
        except (OutputError, KeyError, TypeError, ValueError):
            pass
        return [], pa.table({})


def _runs(numbers: Sequence[int]) -> Iterator[range]:
    """The places of consecutive numbers, run by run."""
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield range(start, place)
            start = place
