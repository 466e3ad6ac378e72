"""Some rows of an output, their numbers as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.answer.vector_forms import SCALE, with_floats


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of a shard. start: the number of the first. All arrays have one entry for each row."""

    shard: str
    start: int
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def has(self, name: str) -> bool:
        """Whether the answers have such a column; those carried along come after `attempts`, the last one."""
        names = self.table.column_names
        return name in names[: names.index("attempts")]

    @property
    def kept(self) -> list[str]:
        """The columns that were carried along from the input."""
        names: list[str] = self.table.column_names
        return names[names.index("attempts") + 1 :]

    def column(self, name: str) -> pa.Array:
        """A column as one array."""
        column = self.table.column(name)
        chunks = column.chunks
        return chunks[0] if len(chunks) == 1 else column.combine_chunks()

    @cached_property
    def vectors(self) -> pa.Array:
        """`embedding` as lists of float32, whatever form it is stored in."""
        return RowBatch(self.shard, self.start, with_floats(self.table)).column("embedding")

    def names(self) -> pa.Array:
        return self.column("custom_id")

    @cached_property
    def answered(self) -> NDArray[np.bool_]:
        return np.asarray(pc.fill_null(pc.equal(self.column("status_code"), 200), False))

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Rows with an error; others without an answer were skipped."""
        return np.asarray(pc.is_valid(self.column("error")))

    @cached_property
    def prompt_tokens(self) -> NDArray[np.int64]:
        return self._whole(self._usage("prompt_tokens"))

    @cached_property
    def completion_tokens(self) -> NDArray[np.int64]:
        return self._whole(self._usage("completion_tokens"))

    @cached_property
    def cached_tokens(self) -> NDArray[np.int64]:
        return self._whole(self._usage(["prompt_tokens_details", "cached_tokens"]))

    @cached_property
    def created(self) -> NDArray[np.int64]:
        """When the row was answered, in seconds since 1970."""
        return self._whole(self.column("created"))

    @cached_property
    def seconds(self) -> NDArray[np.float64]:
        """How long the row took in the engine; NaN where that isn't known."""
        return self._real("seconds")

    @cached_property
    def characters(self) -> NDArray[np.float64]:
        """Of the answer's text; NaN where there is none."""
        if not self.has("text"):
            return np.full(len(self), np.nan)
        return np.asarray(pc.utf8_length(self.column("text")).cast(pa.float64()).fill_null(np.nan))

    def slice(self, index: int) -> RowBatch:
        """One row alone."""
        return RowBatch(self.shard, self.start + index, self.table.slice(index, 1))

    def record(self, index: int) -> dict[str, Any]:
        """One row as Python values, without its vectors."""
        names = [name for name in self.table.column_names if name not in ("embedding", SCALE)]
        row: dict[str, Any] = self.table.select(names).slice(index, 1).to_pylist()[0]
        return row | {"shard": self.shard, "row": self.start + index}

    def _usage(self, path: str | list[str]) -> pa.Array:
        return pc.struct_field(self.column("usage"), path)

    def _real(self, name: str) -> NDArray[np.float64]:
        if not self.has(name):
            return np.full(len(self), np.nan)
        return np.asarray(self.column(name).cast(pa.float64()).fill_null(np.nan))

    def _whole(self, column: pa.Array) -> NDArray[np.int64]:
        return np.asarray(column.fill_null(0), np.int64)
