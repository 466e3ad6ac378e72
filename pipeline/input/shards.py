"""The input: its shards, their plans, and the chunks that are the units of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import InputError, StorageError
from pipeline.files.storage import Entry, Storage
from pipeline.input.compressed import unpacked
from pipeline.input.file_names import (
    SUFFIXES,
    has_suffix,
    is_data,
    is_hidden,
    is_lines,
    output_of,
    partition_of,
)
from pipeline.input.jsonl import LINE, index_lines, name_hash
from pipeline.input.parquet import footer_digest, parquet_file
from pipeline.request.arrow_values import column_values

__all__ = [
    "CHUNK_ROWS",
    "Chunk",
    "Listing",
    "Shard",
    "ShardPlan",
    "chunks",
    "list_input",
    "list_shards",
    "output_of",
    "plan_shard",
]

CHUNK_ROWS = 256
_MAGIC = "*?["
_NAMED = 5


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
        return is_lines(self.name)

    def open(self) -> pa.NativeFile:
        """Open for random access, JSON lines without the compression around them.

        Raises InputError naming the shard.
        """
        try:
            folder, name = Storage.around(self.path)
            file = folder.open_input(name)
            return unpacked(file) if self.lines else file
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
        of a file of JSON lines.
    duplicates: the numbers of rows whose custom_id an earlier row of the shard has.
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


@dataclass(frozen=True, slots=True)
class Listing:
    """The input's shards, and the names of the other files there, which are not read."""

    shards: list[Shard]
    unread: list[str]

    @property
    def note(self) -> str:
        """What isn't read, in a line; "" where all is."""
        if not self.unread:
            return ""
        named = ", ".join(self.unread[:_NAMED]) + (" ..." if len(self.unread) > _NAMED else "")
        files = "1 file is" if len(self.unread) == 1 else f"{len(self.unread):,} files are"
        return f"{files} not read (neither Parquet nor JSON lines, or hidden): {named}"


def list_shards(input_url: str, output_url: str | None = None) -> list[Shard]:
    """As `list_input`, the shards alone."""
    return list_input(input_url, output_url).shards


def list_input(input_url: str, output_url: str | None = None) -> Listing:
    """What there is in a file, a folder or a glob, in the order of names.

    output_url: a folder that may lie within the input, and whose files are none of its shards.

    A file whose own name has a glob's characters is taken by that name. In a folder, names that begin with
    "." or "_" are no shards. Raises InputError where there is no shard, where two would share one output, or
    where a link points to nothing.
    """
    if file := _file(input_url):
        return Listing([file], [])
    found = _in_folder(input_url)
    if not found and any(c in input_url for c in _MAGIC):
        found = _named(input_url)
    if output_url is not None:
        own = f"{Storage.at(output_url).address()}/"
        outside = [shard for shard in found if not shard.path.startswith(own)]
        found = outside if any(is_data(shard.name) for shard in outside) else found
    shards = [shard for shard in found if is_data(shard.name)]
    # What Spark and others keep for themselves is no news, but data there is.
    others = [s.name for s in found if not is_data(s.name) and (has_suffix(s.name) or not is_hidden(s.name))]
    # Some tools mark a folder of an object store by an empty object.
    others = [name for name in others if name and not name.endswith("/")]
    listing = Listing(shards, others)
    if not shards:
        note = f"; {listing.note}" if others else ""
        raise InputError(
            f"input {input_url}: no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file there{note}"
        )
    _check_names(input_url, shards)
    return listing


def _check_names(input_url: str, shards: list[Shard]) -> None:
    outputs: dict[str, str] = {}
    for shard in shards:
        if not _is_unicode(shard.name):
            raise InputError(f"input {input_url}: the name {shard.name!r} is not UTF-8: rename the file")
        other = outputs.setdefault(shard.output, shard.name)
        if other != shard.name:
            raise InputError(f"input {input_url}: {other} and {shard.name} would both become {shard.output}")


def plan_shard(shard: Shard) -> ShardPlan:
    """Reads the footer and the custom_id column. Raises InputError naming a shard that can't be read."""
    try:
        with shard.open() as file:
            return _plan_lines(shard, file) if shard.lines else _plan_parquet(shard, file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard.name}: {_complaint(shard, error)}") from error


def _file(url: str) -> Shard | None:
    """The one file of that name."""
    parent, base = Storage.around(url)
    if base and parent.exists(base):
        if not has_suffix(base):
            raise InputError(
                f"input {url}: expected a {', '.join(SUFFIXES)} file, a folder or a glob; JSON lines "
                "of another name may be renamed"
            )
        return _shard(parent, base, parent.entry(base))
    return None


def _in_folder(url: str) -> list[Shard]:
    folder = Storage.at(url)
    _check_links(url, folder.broken_links())
    return [_shard(folder, name, entry) for name, entry in folder.list().items()]


def _named(pattern: str) -> list[Shard]:
    """The files a glob matches, named below the part of the pattern that has no wildcard."""
    fixed = min(pattern.index(c) for c in _MAGIC if c in pattern)
    cut = pattern.rfind("/", 0, fixed) + 1
    base = Storage.at(pattern[:cut] or ".")
    _check_links(pattern, base.broken_links(pattern[cut:]))
    # Where it matches no file, it may match folders.
    found = base.glob(pattern[cut:]) or base.glob(f"{pattern[cut:]}/**")
    return [_shard(base, name, entry) for name, entry in found.items()]


def _check_links(url: str, broken: Sequence[str]) -> None:
    """A link without a suffix may be to a folder of shards."""
    lost = [name or url for name in broken if not is_hidden(name) and (has_suffix(name) or "." not in name)]
    if lost:
        raise InputError(
            f"input {url}: {len(lost)} link{'s point' if len(lost) > 1 else ' points'} to nothing: "
            f"{', '.join(lost[:_NAMED])}: restore what was there, or remove the link"
        )


def _shard(folder: Storage, name: str, entry: Entry) -> Shard:
    return Shard(name, folder.address(name), entry.size, entry.stamp)


def _is_unicode(name: str) -> bool:
    """False if the file name is not valid UTF-8: Python keeps its bytes as surrogates."""
    return name == name.encode(errors="replace").decode()


def _plan_lines(shard: Shard, file: pa.NativeFile) -> ShardPlan:
    index = index_lines(file, CHUNK_ROWS)
    return ShardPlan(shard, index.rows, index.digest, _repeats(index.names), (LINE,), index.offsets)


def _plan_parquet(shard: Shard, file: pa.NativeFile) -> ShardPlan:
    if shard.size == 0:
        raise pa.ArrowInvalid("empty file, not Parquet")
    if file.read(2) == b"\x1f\x8b":
        raise pa.ArrowInvalid("it is compressed as a whole: gunzip it")
    parquet = parquet_file(file, buffer_size=1 << 20)
    columns = tuple(parquet.schema_arrow.names)
    if len(set(columns)) < len(columns):
        raise pa.ArrowInvalid("two columns have the same name")
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
