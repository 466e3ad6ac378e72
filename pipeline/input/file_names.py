"""What the names of input files say: which are read, as what, and where their answers lie."""

from __future__ import annotations

import re
from urllib.parse import unquote

SUFFIXES = (".parquet", ".pq", ".jsonl", ".ndjson")
"""The common ones, for messages."""

# Writers of Parquet name the compression inside; around JSON lines it is around the file.
_PARQUET = re.compile(r"\.(parquet|parq|pq)(\.(gzip|gz|snappy|zstd|zst|brotli|br|lz4|lzo))?$", re.IGNORECASE)
_LINES = re.compile(r"\.(jsonl|jsonlines|ndjson)(\.(gzip|gz|bz2|zstd|zst|lz4))?$", re.IGNORECASE)
_HIVE = re.compile(r"([^=]+)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_data(name: str) -> bool:
    """Whether the file is read: it has a suffix of Parquet or JSON lines, and isn't hidden."""
    return has_suffix(name) and not is_hidden(name)


def has_suffix(name: str) -> bool:
    return bool(_PARQUET.search(name) or _LINES.search(name))


def is_hidden(name: str) -> bool:
    """Whether it or a folder around it begins with "." or "_", as what Spark keeps for itself."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def is_lines(name: str) -> bool:
    """Whether it is JSON lines rather than Parquet."""
    return bool(_LINES.search(name))


def output_of(shard: str) -> str:
    """The path below `responses/` of the answers to the shard of this name."""
    return f"{_PARQUET.sub('', _LINES.sub('', shard))}.parquet"


def partition_of(shard: str) -> dict[str, str | None]:
    """The columns that Hive's names of folders give all rows of a shard.

    {"lang": "de"} for lang=de/x.parquet.
    The values are texts; null where Hive writes its mark for it.
    """
    found = {}
    for folder in shard.split("/")[:-1]:
        if pair := _HIVE.fullmatch(folder):
            value = unquote(pair[2])
            found[unquote(pair[1])] = None if value == _HIVE_NULL else value
    return found
