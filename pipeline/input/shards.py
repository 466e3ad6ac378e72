"""The input: which files are its shards, and how they are planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.files.storage import Entry, Storage
from pipeline.input.compressed import Unpacked
from pipeline.input.csv_file import scan_csv
from pipeline.input.file_names import SUFFIXES, has_suffix, is_data, is_hidden, output_of
from pipeline.input.jsonl import LINE, scan_lines
from pipeline.input.parquet import outline
from pipeline.input.pieces import Piece, cuts, joined
from pipeline.input.shard import CHUNK_ROWS, Chunk, Shard, ShardPlan, chunks

__all__ = [
    "CHUNK_ROWS",
    "Chunk",
    "Listing",
    "Shard",
    "ShardPlan",
    "chunks",
    "cuts_of",
    "list_input",
    "list_shards",
    "output_of",
    "plan_of",
    "plan_shard",
    "scan",
]

_MAGIC = "*?["
_NAMED = 5


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
        return f"{files} not read (not Parquet, JSON lines or CSV, or hidden): {named}"


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
    """What is known of a shard: from a Parquet file's footer, or from all of a text.

    Raises InputError naming a shard that can't be read.
    """
    if shard.is_text:
        return plan_of(shard, scan(shard, 0, None))
    with _named_in_errors(shard):
        return _outline(shard)


def cuts_of(shard: Shard) -> list[tuple[int, int]]:
    """The parts of a text that can be scanned by themselves: first byte, and the byte after the last one."""
    return list(cuts(shard.size)) if shard.kind == "lines" else [(0, shard.size)]


def scan(shard: Shard, start: int, stop: int | None) -> list[Piece]:
    """Finds the rows of a part of a text; None: to its end. Raises InputError naming the shard.

    start: where a piece begins. A packed file has no parts: the first one stands for all of it.
    """
    with _named_in_errors(shard), shard.open() as file:
        if shard.kind == "csv":
            return scan_csv(file, shard.delimiter)
        if isinstance(file, Unpacked):
            return scan_lines(file, 0, None) if not start else []
        return scan_lines(file, start, stop)


def plan_of(shard: Shard, scanned: Sequence[Piece]) -> ShardPlan:
    """The plan of a text from all of its pieces, in order. Raises InputError naming it."""
    whole = joined(scanned)
    columns = (LINE,) if shard.kind == "lines" else whole.columns
    with _named_in_errors(shard):
        _check_columns(columns)
    return ShardPlan(shard, whole.rows, whole.digest, columns, whole.marks)


def _file(url: str) -> Shard | None:
    """The one file of that name."""
    parent, base = Storage.around(url)
    if base and parent.exists(base):
        if not has_suffix(base):
            raise InputError(
                f"input {url}: expected a {', '.join(SUFFIXES)} file, a folder or a glob; a file "
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


def _outline(shard: Shard) -> ShardPlan:
    if shard.size == 0:
        raise pa.ArrowInvalid("empty file, not Parquet")
    found = outline(shard.read, shard.size)
    _check_columns(found.columns)
    return ShardPlan(shard, found.rows, found.digest, found.columns)


def _check_columns(columns: Sequence[str]) -> None:
    if len(set(columns)) < len(columns):
        raise pa.ArrowInvalid("two columns have the same name")


@contextmanager
def _named_in_errors(shard: Shard) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard.name}: {_complaint(shard, error)}") from error


def _complaint(shard: Shard, error: Exception) -> str:
    kinds = {"parquet": "Parquet file", "lines": "file of JSON lines", "csv": "CSV file"}
    return f"not a readable {kinds[shard.kind]} ({error})"
