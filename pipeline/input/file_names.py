"""What the names of input files say: which are read, as what, and where their answers lie."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

SUFFIXES = (".parquet", ".pq", ".jsonl", ".ndjson", ".csv", ".tsv")
"""The common ones, for messages."""

Kind = Literal["parquet", "lines", "csv"]

# Writers of Parquet name the compression inside; elsewhere it is around the file.
_PARQUET = re.compile(r"\.(parquet|parq|pq)(\.(gzip|gz|snappy|zstd|zst|brotli|br|lz4|lzo))?$", re.IGNORECASE)
_PACKING = r"(\.(gzip|gz|bz2|zstd|zst|lz4))?$"
_LINES = re.compile(rf"\.(jsonl|jsonlines|ndjson){_PACKING}", re.IGNORECASE)
_COMMAS = re.compile(rf"\.(csv|tsv){_PACKING}", re.IGNORECASE)
_HIVE = re.compile(r"([^=]+)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_data(name: str) -> bool:
    """Whether the file is read: it has a suffix of Parquet, JSON lines or CSV, and isn't hidden."""
    return has_suffix(name) and not is_hidden(name)


def has_suffix(name: str) -> bool:
    return kind_of(name) is not None


def is_hidden(name: str) -> bool:
    """Whether it or a folder around it begins with "." or "_", as what Spark keeps for itself."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def kind_of(name: str) -> Kind | None:
    """What the file is read as; TSV is CSV with tabs. None for another file."""
    kinds: dict[Kind, re.Pattern[str]] = {"parquet": _PARQUET, "lines": _LINES, "csv": _COMMAS}
    return next((kind for kind, suffix in kinds.items() if suffix.search(name)), None)


def delimiter_of(name: str) -> str:
    """What stands between the fields of a CSV or TSV file of this name."""
    found = _COMMAS.search(name)
    return "\t" if found and found[1].lower() == "tsv" else ","


def output_of(shard: str) -> str:
    """The path below `responses/` of the answers to the shard of this name."""
    return f"{_PARQUET.sub('', _LINES.sub('', _COMMAS.sub('', shard)))}.parquet"


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
