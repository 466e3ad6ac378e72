"""The note in the footer of every Parquet file of an output: whose rows these are, and what they cost."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.failures import NO_FAILURES, Failures, Reason
from pipeline.tally import ALREADY_ANSWERED, Tally

KEY = b"nightherd"
_COUNTED = ("status_code", "attempts", "usage")


@dataclass(frozen=True, slots=True)
class Footer:
    """The rows [start, stop) of a shard.

    dimensions: the lengths of its vectors, each once, ascending. retry: the number of the retry that
    last went over the file, 0 before the first. source: the version of the shard, see `Fingerprint.source`.
    """

    fingerprint: str
    shard: str
    start: int
    stop: int
    tally: Tally
    dimensions: tuple[int, ...] = ()
    retry: int = 0
    source: str = ""

    def awaits(self, retry: int) -> bool:
        """Whether the retry with this number must still rewrite this file."""
        return self.retry < retry and self.tally.failed > 0

    @property
    def kept(self) -> Tally:
        """What a retry leaves of the tally. Failed rows cost nothing but their attempts, which add up."""
        rows = self.tally.rows - self.tally.failed
        return replace(self.tally, rows=rows, failed=0, errors=NO_FAILURES)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self) | {"tally": self.tally.to_dict()}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Footer:
        record = json.loads(data)
        record["tally"] = Tally.from_dict(record["tally"])
        record["dimensions"] = tuple(record["dimensions"])
        return cls(**record)


def read_footer(parquet: pq.ParquetFile) -> Footer:
    """The footer's note. Raises OutputError where there is none, or where the file's rows contradict it."""
    metadata: dict[bytes, bytes] = parquet.metadata.metadata or {}
    if KEY not in metadata:
        raise OutputError("not a file of nightherd's: its footer has no record")
    try:
        footer = Footer.from_bytes(metadata[KEY])
        rows = {parquet.metadata.num_rows, footer.stop - footer.start, footer.tally.rows}
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"the record in its footer can't be read: {error!r}") from None
    if len(rows) > 1:
        raise OutputError(
            f"its footer speaks of {footer.tally.rows} rows, it has {parquet.metadata.num_rows}"
        )
    return footer


def check_counts(parquet: pq.ParquetFile, tally: Tally) -> None:
    """Raises OutputError where the rows, counted anew, don't add up to `tally`.

    Its seconds, its reused rows and its examples of errors aren't counted."""
    counted = Tally()
    for batch in parquet.iter_batches(batch_size=8192, columns=list(_COUNTED), use_threads=False):
        counted += count(pa.Table.from_batches([batch]))
    if counted != replace(tally, seconds=0.0, reused=0, errors=NO_FAILURES):
        raise OutputError(f"its rows add up to {counted}, its footer says {tally}")


def count(table: pa.Table, shard: str = "") -> Tally:
    """What the rows of a response table say they cost; seconds and reused are 0. shard: which they are of.

    Why rows failed is told where the table has their names and errors."""
    usage = table.column("usage")
    status = table.column("status_code")
    succeeded = _sum(pc.equal(status, 200))
    failed = table.num_rows - succeeded - _sum(pc.equal(status, ALREADY_ANSWERED))
    return Tally(
        rows=table.num_rows,
        succeeded=succeeded,
        failed=failed,
        prompt_tokens=_sum(pc.struct_field(usage, "prompt_tokens")),
        completion_tokens=_sum(pc.struct_field(usage, "completion_tokens")),
        cached_tokens=_sum(pc.struct_field(usage, ["prompt_tokens_details", "cached_tokens"])),
        attempts=_sum(table.column("attempts")),
        errors=_failures(table, shard) if failed else NO_FAILURES,
    )


def _failures(table: pa.Table, shard: str) -> Failures:
    told = {"custom_id", "error"} <= set(table.column_names)
    if not told or table.schema.field("error").type.get_field_index("message") < 0:
        return NO_FAILURES
    failed = table.select(["custom_id", "error"]).filter(pc.is_valid(table.column("error")))
    return Failures.of(
        Reason(error["code"], error["message"] or "", 1, shard, name)
        for name, error in zip(*(column.to_pylist() for column in failed.columns), strict=True)
    )


def _sum(values: Any) -> int:
    return int(pc.sum(values).as_py() or 0)
