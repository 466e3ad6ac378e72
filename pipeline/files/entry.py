"""A file as a listing shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_STAMPS = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "updated", "created")


@dataclass(frozen=True, slots=True)
class Entry:
    """size: bytes. stamp: its etag or time of change, "" where the store has neither."""

    size: int
    stamp: str

    @classmethod
    def of(cls, info: dict[str, Any]) -> Entry:
        """From what fsspec says of a file."""
        stamp = next((info[key] for key in _STAMPS if info.get(key)), "")
        return cls(int(info["size"] or 0), str(stamp).strip('"'))
