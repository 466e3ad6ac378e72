"""Records that are written once. The first to write one wins, and nobody changes it afterwards."""

from __future__ import annotations

import json
from typing import Any

from pipeline.files.storage import Storage
from pipeline.output.records import write_record

Record = dict[str, Any]


def put(data: Storage, name: str, record: Record) -> bool:
    """False where it was there before: what stands there counts. Raises StorageError."""
    return data.publish(name, lambda file: write_record(file, record))


def read(data: Storage, name: str) -> Record | None:
    """None where there is none. Raises StorageError."""
    try:
        found: Record = json.loads(data.read_bytes(name))
    except FileNotFoundError:
        return None
    return found
