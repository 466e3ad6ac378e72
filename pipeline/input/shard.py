"""What the input is made of: shards, what is known of them, and the chunks that are the units of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import InputError, StorageError
from pipeline.files.storage import Storage
from pipeline.input.compressed import unpacked
from pipeline.input.file_names import Kind, delimiter_of, kind_of, output_of, partition_of
from pipeline.input.pieces import Mark

CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file.

    name: its path below the input ("a/b.parquet"); path: its full path or URL; size: bytes; stamp: its
    etag or time of change, "" where unknown.
    """

    name: str
    path: str
    size: int
    stamp: str

    @property
    def output(self) -> str:
        """The path of its answers below `responses/`."""
        return output_of(self.name)

    @property
    def kind(self) -> Kind:
        """What it is read as."""
        return kind_of(self.name) or "parquet"

    @property
    def is_text(self) -> bool:
        """Whether its rows are found by reading it: it is JSON lines or CSV."""
        return self.kind != "parquet"

    @property
    def delimiter(self) -> str:
        """What stands between its fields, where it is CSV."""
        return delimiter_of(self.name)

    def open(self) -> pa.NativeFile:
        """Open for random access, a text without the compression around it.

        Raises InputError naming the shard.
        """
        try:
            folder, name = Storage.around(self.path)
            file = folder.open_input(name)
            return unpacked(file) if self.is_text else file
        except (FileNotFoundError, StorageError) as error:
            raise InputError(f"{self.name}: can't be opened: {error}") from error

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of the file as it lies there. Raises InputError naming the shard."""
        try:
            folder, name = Storage.around(self.path)
            return folder.read_range(name, start, stop)
        except (FileNotFoundError, StorageError) as error:
            raise InputError(f"{self.name}: can't be read: {error}") from error


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """The rows [start, stop) of a shard."""

    shard: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def within(self, other: Chunk) -> bool:
        """Whether all of its rows are in the other chunk, too."""
        return self.shard == other.shard and other.start <= self.start and self.stop <= other.stop

    def cut(self, other: Chunk) -> Chunk:
        """Its rows that are in the other chunk of the shard, too; none, or less, where there are none."""
        return Chunk(self.shard, max(self.start, other.start), min(self.stop, other.stop))

    def moved(self, rows: int) -> Chunk:
        return Chunk(self.shard, self.start + rows, self.stop + rows)


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What is known of a shard before any of its rows is answered.

    digest: a hash, hex, of a Parquet file's footer (sizes, places and ranges of all its pieces), or of all
        of a text.
    marks: for a text, where some rows begin: (row, byte), in order, the first row's first; else ().
    retry: the number of the retry that the shard is part of; 0 while it has no response file.
    recorded: known from the output's record alone: the file was not read, and may be gone.
    """

    shard: Shard
    rows: int
    digest: str
    columns: tuple[str, ...]
    marks: tuple[Mark, ...] = ()
    retry: int = 0
    recorded: bool = False

    @property
    def partition(self) -> dict[str, str | None]:
        """The columns that the names of its folders give all of its rows; its own columns go before them."""
        return {k: v for k, v in partition_of(self.shard.name).items() if k not in self.columns}

    @property
    def whole(self) -> Chunk | None:
        """The chunk that is committed as the response file itself."""
        return None if self.retry else Chunk(self.shard.name, 0, self.rows)


def chunks(plan: ShardPlan) -> Iterator[Chunk]:
    """The shard's chunks, in order; none for an empty shard."""
    for start in range(0, plan.rows, CHUNK_ROWS):
        yield Chunk(plan.shard.name, start, min(start + CHUNK_ROWS, plan.rows))
