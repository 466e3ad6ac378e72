"""The input: its shards, their plans, and the chunks that are the units of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import InputError, StorageError
from pipeline.request.arrow_values import column_values
from pipeline.shard.jsonl import LINE, index_lines, name_hash
from pipeline.shard.parquet import footer_digest, parquet_file
from pipeline.storage import Entry, Storage

CHUNK_ROWS = 256
SUFFIXES = (".parquet", ".jsonl")
_MAGIC = "*?["


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
    def lines(self) -> bool:
        """Whether it is JSON lines rather than Parquet."""
        return self.name.endswith(".jsonl")

    def open(self) -> pa.NativeFile:
        """Open for random access. Raises InputError naming the shard."""
        try:
            folder, name = Storage.around(self.path)
            return folder.open_input(name)
        except (FileNotFoundError, StorageError) as error:
            raise InputError(f"{self.name}: can't be opened: {error}") from error


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """The rows [start, stop) of a shard."""

    shard: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What is known of a shard before any of its rows is answered.

    digest: a hash, hex, of a Parquet file's footer (sizes, places and ranges of all its pieces), or of all
        of a file of JSON lines.
    duplicates: the numbers of rows whose custom_id an earlier row of the shard bears.
    offsets: for JSON lines, the byte at which every CHUNK_ROWS-th row begins; else ().
    retry: the number of the retry that the shard is part of; 0 while it has no response file.
    """

    shard: Shard
    rows: int
    digest: str
    duplicates: tuple[int, ...]
    columns: tuple[str, ...]
    offsets: tuple[int, ...] = ()
    retry: int = 0

    @property
    def whole(self) -> Chunk | None:
        """The chunk that is committed as the response file itself."""
        return None if self.retry else Chunk(self.shard.name, 0, self.rows)


def output_of(shard: str) -> str:
    """The path below `responses/` of the answers to the shard of this name."""
    return str(PurePosixPath(shard).with_suffix(".parquet"))


def chunks(plan: ShardPlan) -> Iterator[Chunk]:
    """The shard's chunks, in order; none for an empty shard."""
    for start in range(0, plan.rows, CHUNK_ROWS):
        yield Chunk(plan.shard.name, start, min(start + CHUNK_ROWS, plan.rows))


def list_shards(input_url: str, output_url: str | None = None) -> list[Shard]:
    """The shards of a file, a folder or a glob, in the order of their names.

    output_url: a folder that may lie within the input, and whose files are none of its shards.

    What bears a glob's characters in its own name is taken by that name. In a folder, names that begin with
    "." or "_" are skipped, and so are files that are neither .parquet nor .jsonl. Raises InputError where
    there is none, or where two would share one output.
    """
    shards = _at(input_url)
    if not shards and any(c in input_url for c in _MAGIC):
        shards = _named(input_url)
    if output_url is not None:
        own = f"{Storage.at(output_url).address()}/"
        shards = [shard for shard in shards if not shard.path.startswith(own)] or shards
    if not shards:
        raise InputError(f"input {input_url}: no {' or '.join(SUFFIXES)} file there")
    outputs: dict[str, str] = {}
    for shard in shards:
        if not _is_unicode(shard.name):
            raise InputError(f"input {input_url}: the name {shard.name!r} is not UTF-8: rename the file")
        other = outputs.setdefault(shard.output, shard.name)
        if other != shard.name:
            raise InputError(f"input {input_url}: {other} and {shard.name} would both become {shard.output}")
    return shards


def plan_shard(shard: Shard) -> ShardPlan:
    """Reads the footer and the custom_id column. Raises InputError naming a shard that can't be read."""
    try:
        with shard.open() as file:
            return _plan_lines(shard, file) if shard.lines else _plan_parquet(shard, file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard.name}: {_complaint(shard, error)}") from error


def _at(url: str) -> list[Shard]:
    """One file, whatever its suffix, or the folder's files."""
    parent, base = Storage.around(url)
    if base and parent.exists(base):
        if not base.endswith(SUFFIXES):
            raise InputError(f"input {url}: expected a {' or '.join(SUFFIXES)} file, a folder or a glob")
        return [_shard(parent, base, parent.entry(base))]
    folder = Storage.at(url)
    return [_shard(folder, name, entry) for name, entry in folder.list().items() if _is_data(name)]


def _named(pattern: str) -> list[Shard]:
    """The files a glob matches, named below the part of the pattern that has no wildcard."""
    fixed = min(pattern.index(c) for c in _MAGIC if c in pattern)
    cut = pattern.rfind("/", 0, fixed) + 1
    base = Storage.at(pattern[:cut] or ".")
    found = base.glob(pattern[cut:])
    return [_shard(base, name, entry) for name, entry in found.items() if _is_data(name)]


def _shard(folder: Storage, name: str, entry: Entry) -> Shard:
    return Shard(name, folder.address(name), entry.size, entry.stamp)


def _is_data(name: str) -> bool:
    hidden = any(part.startswith((".", "_")) for part in name.split("/"))
    return name.endswith(SUFFIXES) and not hidden


def _is_unicode(name: str) -> bool:
    """Not so where a local file's name holds bytes that aren't UTF-8, which Python keeps as surrogates."""
    return name == name.encode(errors="replace").decode()


def _plan_lines(shard: Shard, file: pa.NativeFile) -> ShardPlan:
    index = index_lines(file, CHUNK_ROWS)
    return ShardPlan(shard, index.rows, index.digest, _repeats(index.names), (LINE,), index.offsets)


def _plan_parquet(shard: Shard, file: pa.NativeFile) -> ShardPlan:
    if shard.size == 0:
        raise pa.ArrowInvalid("empty file, not Parquet")
    parquet = parquet_file(file, buffer_size=1 << 20)
    columns = tuple(parquet.schema_arrow.names)
    if len(set(columns)) < len(columns):
        raise pa.ArrowInvalid("two columns bear the same name")
    repeats = _repeats(_hashes(parquet)) if "custom_id" in columns else ()
    return ShardPlan(shard, parquet.metadata.num_rows, footer_digest(file), repeats, columns)


def _hashes(parquet: pq.ParquetFile) -> NDArray[np.uint64]:
    """A 64-bit hash of each row's custom_id; 0 where it is null."""
    pieces = [np.empty(0, np.uint64)]
    for batch in parquet.iter_batches(batch_size=8192, columns=["custom_id"], use_threads=False):
        column = pa.Table.from_batches([batch]).column(0)
        names = column_values(column, "custom_id")
        pieces.append(np.fromiter(map(name_hash, names), np.uint64, len(names)))
    return np.concatenate(pieces)


def _repeats(hashes: NDArray[np.uint64]) -> tuple[int, ...]:
    """The places of values, other than 0, that stood at an earlier place."""
    order = np.argsort(hashes, kind="stable")
    same = (hashes[order[1:]] == hashes[order[:-1]]) & (hashes[order[1:]] != 0)
    return tuple(sorted(order[1:][same].tolist()))


def _complaint(shard: Shard, error: Exception) -> str:
    kind = "not a readable file of JSON lines" if shard.lines else "not a readable Parquet file"
    return f"{kind} ({error})"
