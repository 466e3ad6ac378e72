"""One job under faults: its input, its drivers one after the other, and what its workers logged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.answer_log import AnswerLog
from tests.faults.driver import Order
from tests.faults.driver_process import DriverProcess
from tests.faults.machines import until
from tests.faults.watcher import Watcher

SCHEMA = pa.schema([("custom_id", pa.string()), ("prompt", pa.string())])


class Case:
    """Folders for one job, and the cluster that it runs on. marks: the shards finished before each driver."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address = folder, address
        self.input, self.output = folder / "in", folder / "out"
        self.log = AnswerLog(folder / "answers.jsonl")
        self.rows: dict[str, int] = {}
        self.drivers: list[DriverProcess] = []
        self.marks: list[set[str]] = []
        self.input.mkdir()

    def shard(self, name: str, rows: int, orders: dict[int, str] | None = None) -> None:
        """orders: by row, what befalls whoever answers it."""
        first = 100_000 * len(self.rows)
        prompts = [f"{first + i} {(orders or {}).get(i, '')}".strip() for i in range(rows)]
        table = pa.table([[f"{name}-{i}" for i in range(rows)], prompts], schema=SCHEMA)
        pq.write_table(table, self.input / f"{name}.parquet")
        self.rows[f"{name}.parquet"] = rows

    def start(self, job: dict[str, Any] | None = None, **order: Any) -> DriverProcess:
        """job: sections of the job file. order: fields of Order."""
        driver = DriverProcess(self.order(job, **order), self.address, self.folder)
        self.drivers.append(driver)
        return driver

    def order(self, job: dict[str, Any] | None = None, **order: Any) -> Order:
        paths = {"input": {"path": str(self.input)}, "output": {"path": str(self.output)}}
        whole = {"model": {"path": "fake.gguf"}, "cluster": {"actors": 2, "cpus_per_actor": 1}}
        return Order({**whole, **paths, **(job or {})}, str(self.log.path), len(self.drivers) + 1, **order)

    def run(self, job: dict[str, Any] | None = None, seconds_left: float = 120, **order: Any) -> None:
        """A driver from its start to its good end."""
        driver = self.start(job, **order)
        status = driver.wait(seconds_left)
        assert status == 0, driver.tail

    def watch(self) -> Watcher:
        return Watcher(self.output, self.rows)

    def appears(self, pattern: str, seconds: float = 60, count: int = 1) -> list[Path]:
        """Waits until so many files of the output match a glob; as soon as it can be seen."""
        found: list[Path] = until(
            lambda: len(paths := list(self.output.glob(pattern))) >= count and paths,
            seconds,
            pattern,
            pause=0.001,
        )
        return found

    def finished(self) -> dict[str, pa.Table]:
        """The answers that are committed, by shard."""
        return {path.stem: pq.read_table(path) for path in sorted(self.output.glob("responses/*.parquet"))}

    def twin(self) -> Case:
        """The same job with another output."""
        folder = self.folder / "twin"
        folder.mkdir()
        twin = Case(folder, self.address)
        twin.input, twin.rows = self.input, self.rows
        return twin

    def close(self) -> None:
        for driver in self.drivers:
            if driver.running:
                driver.kill()
