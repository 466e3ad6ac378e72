"""What the tests publish."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.storage import Storage


def put(storage: Storage, name: str, data: bytes) -> bool:
    return storage.publish(name, lambda file: file.write(data) and None)


def put_table(storage: Storage, name: str, table: pa.Table) -> None:
    storage.publish(name, lambda file: pq.write_table(table, file, row_group_size=10_000))
