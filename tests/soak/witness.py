"""Somebody who reads each response file at the moment it appears, and remembers what was done."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.output.footer import Footer, check_counts, read_footer
from pipeline.output.records import RECORD, RESPONSES, SUCCESS
from pipeline.output.sources import source_of
from tests.soak.case import Case, Fate
from tests.soak.world import World

_COLUMNS = ["custom_id", "text", "usage", "error"]


class Witness:
    """Looks at the output without being a part of the simulation."""

    def __init__(self, world: World, case: Case) -> None:
        self._world, self._case = world, case
        self._output = Storage.at(case.output)
        self._sources = case.sources
        self._seen: dict[str, Footer] = {}
        self._known_done: dict[int, set[str]] = {}
        self._claimed = False

    def changed(self) -> None:
        """The input has changed: what belongs to the shards that it had may go."""
        self._sources = self._case.sources

    def see(self, operation: str, name: str) -> None:
        """Something about the file `name` has just changed."""
        if name.startswith(f"{RESPONSES}/"):
            self._look(operation, name)
        elif name in (SUCCESS, RECORD) and operation != "write":
            self._look_at_records()

    def known_done(self, driver: int, rows: list[str]) -> None:
        """A driver has seen, as it began, that these rows are done."""
        self._known_done.setdefault(driver, set()).update(rows)

    def answered(self, driver: int, row: str) -> None:
        """A worker of this driver's has answered a row."""
        if row in self._known_done.get(driver, ()):
            self._world.broken(f"{row} was answered again though its answer was known to be committed")

    def _look(self, operation: str, name: str) -> None:
        if operation == "write":
            self._world.broken(f"{name} is being written under its final name")
        present = self._is_there(name)
        before = self._seen.get(name)
        outdated = before is not None and (before.shard, before.source) not in self._sources
        if before and not present:
            if not outdated:
                self._world.broken(f"{name} went away again")
            del self._seen[name]
        if not present:
            return
        footer = self._read(name)
        if before and footer != before and footer.retry <= before.retry and not outdated:
            self._world.broken(f"{name} changed after it had appeared: {before}, now {footer}")
        self._seen[name] = footer

    def _look_at_records(self) -> None:
        finished = self._is_there(SUCCESS)
        if self._claimed and not finished and not self._is_there(RECORD):
            self._world.broken(f"neither {SUCCESS} nor {RECORD} is there")
        self._claimed = True
        if finished:
            self._look_at_success()

    def _look_at_success(self) -> None:
        with self._world.aloof():
            shards = json.loads(self._output.read_bytes(SUCCESS))["record"]["input"]
        found = {(footer.shard, footer.source) for footer in self._seen.values()}
        if {(name, source_of(entry)) for name, entry in shards.items()} & self._sources - found:
            self._world.broken(f"{SUCCESS} is there before all shards are")

    def _is_there(self, name: str) -> bool:
        with self._world.aloof():
            return self._output.exists(name)

    def _read(self, name: str) -> Footer:
        """The footer of a response file that holds what it has to. Ends the simulation where it doesn't."""
        with self._world.aloof():
            try:
                footer, rows = self._opened(name)
                problem = self._wrong(name, footer, rows)
            except (OutputError, pa.ArrowException, OSError) as error:
                problem = str(error)
        if problem:
            self._world.broken(f"{name}: {problem}")
        return footer

    def _opened(self, name: str) -> tuple[Footer, list[dict[str, Any]]]:
        with self._output.open_input(name) as file:
            parquet = pq.ParquetFile(file)
            footer = read_footer(parquet)
            check_counts(parquet, footer.tally)
            return footer, parquet.read(columns=_COLUMNS, use_threads=False).to_pylist()

    def _wrong(self, name: str, footer: Footer, rows: list[dict[str, Any]]) -> str:
        prompts = self._case.versions.get((footer.shard, footer.source))
        if prompts is None or name != f"{RESPONSES}/{PurePosixPath(footer.shard).with_suffix('.parquet')}":
            return "belongs to no shard"
        if len(rows) != len(prompts):
            return f"has {len(rows)} rows of {len(prompts)}"
        for row, prompt in zip(rows, prompts, strict=True):
            if not Fate.of(prompt, footer.retry).is_fulfilled(row):
                return f"{prompt} became {row}"
        return ""
