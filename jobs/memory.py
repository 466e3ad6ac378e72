"""Shows that memory does not grow with the rows of a shard: one shard, a fake model, real actors.

    python jobs/memory.py --rows 1000000

Prints the resident memory (MiB) of the driver and of the largest actor at each tenth of the rows;
the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.files.storage import Storage
from pipeline.job.actors.cluster import Slot
from pipeline.job.driver import run_job
from pipeline.job.worker import Identity, Worker
from pipeline.model.models import LocalModel
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService

MODEL = LocalModel(Path("fake.gguf"), "0" * 64, 1)


@dataclass(frozen=True)
class FakeWorkers:
    """Workers of the fake model; all else is the product's own."""

    job: JobConfig
    fingerprint: Fingerprint

    def __call__(self, slot: Slot) -> Worker:
        identity = Identity("fake", self.fingerprint.digest)
        model = FakeModel(cells=8192, context=128, max_sequences=69, batch_size=2048)
        responder = GenerativeResponder(
            GenerativeService(
                Runner(Engine(model, slots=64)), model.vocabulary, context=128, deadlines=Deadlines(60)
            ),
            Answers("fake", self.fingerprint.digest, pa.schema([])),
        )
        manifest = Manifest(Storage.at(self.job.output.path), self.fingerprint)
        return Worker(self.job, identity, manifest, responder)


class Watch(threading.Thread):
    """Reads the resident memory of driver and actors at each tenth of the rows."""

    def __init__(self, progress: Path, rows: int) -> None:
        super().__init__(daemon=True)
        self._progress, self._rows = progress, rows
        self.seen: dict[int, tuple[float, float]] = {}

    def run(self) -> None:
        while True:
            time.sleep(0.5)
            try:
                done = json.loads(self._progress.read_text())["rows_done"]
            except (OSError, ValueError, KeyError):
                continue
            tenth = 10 * done // self._rows * 10
            if tenth and tenth not in self.seen:
                self.seen[tenth] = (resident(os.getpid()), max(map(resident, actors()), default=0.0))
                print(
                    f"{tenth:3} % driver {self.seen[tenth][0]:.0f} MiB, actor {self.seen[tenth][1]:.0f} MiB"
                )


def resident(pid: int) -> float:
    """MiB of a process that are in memory and its own."""
    try:
        status = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    own = [line.split()[1] for line in status.splitlines() if line.startswith("Private")]
    return sum(map(int, own)) / 1024


def actors() -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if "RowActor" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def write_shard(path: Path, rows: int) -> None:
    schema = pa.schema({"prompt": pa.string(), "max_tokens": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        prompts = [f"row {number} of many" for number in range(rows)]
        table = pa.table({"prompt": prompts, "max_tokens": [1] * rows}, schema=schema)
        writer.write_table(table, row_group_size=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        shard, output = Path(folder, "rows.parquet"), Path(folder, "out")
        write_shard(shard, rows)
        parts = {
            "model": {"path": "fake.gguf"},
            "input": {"path": str(shard)},
            "output": {"path": str(output)},
        }
        job = JobConfig.model_validate(parts)
        watch = Watch(output / "_work/progress.json", rows)
        watch.start()
        summary = run_job(job, FakeWorkers, MODEL)
    figures = {str(tenth): [round(mib) for mib in pair] for tenth, pair in sorted(watch.seen.items())}
    print(json.dumps({"rows": summary.totals.rows, "mib_driver_actor": figures}))


if __name__ == "__main__":
    main()
