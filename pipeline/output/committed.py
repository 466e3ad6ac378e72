"""The rows that an output has so far, of a finished job or of one under way, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.input.parquet import row_batches
from pipeline.input.shards import Chunk
from pipeline.output.assembly import cover
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import read_footer
from pipeline.output.manifest import Manifest
from pipeline.output.records import RECORD, SUCCESS, answers_of, read_record, response_name

Select = Callable[[pa.Schema], list[str]]
"""The names of the columns to read, from a file's schema."""


@dataclass(frozen=True)
class CommittedRows:
    """shards: the rows of each shard of the job. finished: every row is there. record: the job's own."""

    manifest: Manifest
    shards: Mapping[str, int]
    finished: bool
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def at(cls, output_url: str, unfinished: str | None = None) -> CommittedRows:
        """The rows of the job at this path or URL.

        unfinished: refuse a job that isn't finished, with this for a reason; None takes what there is.
        Raises OutputError.
        """
        output = Storage.at(output_url)
        success = read_record(output, SUCCESS)
        record = success or read_record(output, RECORD)
        if not record:
            raise OutputError(f"output {output_url}: no job has begun there")
        if not success and unfinished:
            raise OutputError(f"output {output_url}: the job isn't finished: {unfinished}")
        prints = Fingerprint.recorded(record)
        shards = {name: int(shard["rows"]) for name, shard in prints.shards.items()}
        return cls(Manifest(output, prints), shards, bool(success), record)

    @property
    def rows(self) -> int:
        return sum(self.shards.values())

    def tables(self, shard: str, select: Select, rows: int) -> Iterator[tuple[int, pa.Table]]:
        """The shard's rows in order, at most `rows` at a time, each table with the number of its first row.

        Raises OutputError where an answer is damaged, or missing of a finished job.
        """
        # Listed before the response file is looked for: chunks go when it has come.
        chunks = [] if self.finished else self._chunks(shard)
        try:
            yield from self._response(shard, select, rows)
        except FileNotFoundError:
            if self.finished:
                path = f"{self.manifest.output.url}/{response_name(shard)}"
                raise OutputError(f"{path} is absent") from None
            yield from self._chunk_tables(shard, chunks, select, rows)

    def _chunk_tables(
        self, shard: str, chunks: list[Chunk], select: Select, rows: int
    ) -> Iterator[tuple[int, pa.Table]]:
        for chunk in chunks:
            try:
                table = self.manifest.table(self.manifest.chunk_name(chunk))
            except FileNotFoundError:
                yield from self._response(shard, select, rows, chunk.start)
                return
            chosen = table.select(select(table.schema))
            for at in range(0, chosen.num_rows, rows):
                yield chunk.start + at, chosen.slice(at, rows)

    def _response(
        self, shard: str, select: Select, rows: int, start: int = 0
    ) -> Iterator[tuple[int, pa.Table]]:
        with answers_of(self.manifest.output, response_name(shard), 1 << 20) as parquet:
            self._check(parquet, shard)
            at, names = 0, select(parquet.schema_arrow)
            for batch in row_batches(parquet, rows, names):
                skipped = min(max(0, start - at), batch.num_rows)
                # To Parquet a.b is also the field b of a struct a.
                yield at + skipped, pa.Table.from_batches([batch]).select(names).slice(skipped)
                at += batch.num_rows

    def _check(self, parquet: pq.ParquetFile, shard: str) -> None:
        footer, prints = read_footer(parquet), self.manifest.fingerprint
        found = (footer.fingerprint, footer.shard, footer.start, footer.stop)
        if found[:2] == (prints.digest, shard) and footer.source != prints.source(shard):
            raise FileNotFoundError(f"{response_name(shard)}: answers to another version of {shard}")
        if found != (prints.digest, shard, 0, self.shards[shard]):
            raise OutputError("doesn't hold this job's answers")

    def _chunks(self, shard: str) -> list[Chunk]:
        return cover(Chunk(f.shard, f.start, f.stop) for f in self.manifest.chunk_footers(shard))
