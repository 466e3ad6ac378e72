"""The ids of files and batches: in the order of their creation."""

from __future__ import annotations

import re
import uuid
from hashlib import blake2b

FILE, BATCH = "file-", "batch_"
_HEX = 13
_IDS = {prefix: re.compile(prefix + "[0-9a-f]{24}") for prefix in (FILE, BATCH)}


def new_id(prefix: str, at: float) -> str:
    """at: seconds since 1970."""
    return _id(prefix, at, uuid.uuid4().hex)


def derived_id(prefix: str, at: float, origin: str) -> str:
    """The same for the same origin and time."""
    return _id(prefix, at, blake2b(origin.encode()).hexdigest())


def is_id(prefix: str, text: str) -> bool:
    """Whether it can be an id, and so a name in a file system."""
    return bool(_IDS[prefix].fullmatch(text))


def created(id: str) -> float:
    """When it was made: seconds since 1970."""
    return int(id[-24:-_HEX], 16) / 1000


def folder_of(owner: str) -> str:
    """Where an owner's files and batches lie: an owner's name may hold anything, this one lies anywhere."""
    return blake2b(owner.encode(errors="replace"), digest_size=16).hexdigest()


def _id(prefix: str, at: float, text: str) -> str:
    return f"{prefix}{int(at * 1000):011x}{text[:_HEX]}"
