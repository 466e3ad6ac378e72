"""`nightherd serve` on Ray with the fake model.

Its arguments are the file of keys, the folder of files and batches, each - for none, and settings of the job.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.config import JobConfig, load_job, parse_setting
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.fake import FakeModel
from pipeline.errors import JobError, ModelError
from pipeline.job.actors.cluster import Slot
from pipeline.respond.service import Service
from pipeline.serve.cluster.fleet import serve_on_cluster
from pipeline.serve.keys import Keys
from pipeline.serve.serving import Address
from tests.serve.live import generative

UNUSED = [f"{name}.path=unused" for name in ("input", "output")]
STEP_SECONDS = 0.01


def build(job: JobConfig, slot: Slot) -> Service:
    """A model that is called "missing" can't be loaded; a file that is called "broken" breaks at once."""
    if job.model.path == "missing":
        raise ModelError("missing: no such file")
    model = FakeModel(max_sequences=9, context=4096, cells=16384, seconds=STEP_SECONDS)
    path = Path(job.model.path)
    if path.name == "broken" and path.exists():
        model.fails = lambda batch: 1 / 0
    return generative(model, Engine(model, slots=4))


def main(keys_file: str, folder: str, *settings: str) -> int:
    keys = None if keys_file == "-" else Keys.of_file(Path(keys_file))
    data = None if folder == "-" else folder
    try:
        job = load_job(None, map(parse_setting, ["model.path=fake", *UNUSED, *settings]))
        serve_on_cluster(job, Address(port=0), keys, lambda line: print(line, flush=True), build, data=data)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
