"""A driver in a process of its own, that can be killed: python -m tests.faults.driver ORDER.json"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.config import JobConfig
from pipeline.errors import JobError
from pipeline.job.driver import run_job
from pipeline.model.models import LocalModel
from tests.faults.answer_log import AnswerLog
from tests.faults.disk import Disk, on_change
from tests.faults.fake_model import CalculatorWorkers
from tests.faults.lossy import Losses

MODEL = LocalModel(Path("fake.gguf"), "0" * 64, 1)
GAVE_UP = 3
"""The exit status after an error that the pipeline names; Python's own after any other is 1."""
TUNED = (
    "pipeline.job.actors.ray_pool",
    "pipeline.job.actors.ray_member",
    "pipeline.job.run",
    "pipeline.job.driver",
)
"""Where the pipeline keeps the time-outs that a test may shorten."""


@dataclass(frozen=True)
class Order:
    """What a driver does.

    seconds: what a row takes. constants: of the pipeline, set to other values. dies_before: a change to
    the output ("os.link _SUCCESS") before which the driver kills itself. unfit: the ids of nodes on which
    a worker dies of any row; "all" for every node.
    """

    job: dict[str, Any]
    log: str
    run: int = 0
    seconds: float = 0.002
    dies_before: str = ""
    constants: dict[str, float] = field(default_factory=dict)
    losses: Losses = field(default_factory=Losses)
    disk: Disk = field(default_factory=Disk)
    unfit: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Order:
        record = json.loads(path.read_text())
        losses, disk = Losses(**record.pop("losses")), Disk(**record.pop("disk"))
        return cls(**record, losses=losses, disk=disk)


def run(order: Order) -> int:
    """The exit status."""
    for name, value in order.constants.items():
        set_constant(name, value)
    order.losses.install()
    if order.dies_before:
        on_change(order.job["output"]["path"], partial(die, order.dies_before))
    workers = partial(
        CalculatorWorkers,
        log=AnswerLog(Path(order.log), order.run),
        seconds=order.seconds,
        disk=order.disk,
        unfit=tuple(order.unfit),
    )
    try:
        print(run_job(JobConfig.model_validate(order.job), workers, MODEL, partial(print, file=sys.stderr)))
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return GAVE_UP
    return 0


def die(when: str, change: str) -> None:
    if change == when:
        os.kill(os.getpid(), signal.SIGKILL)


def set_constant(name: str, value: float) -> None:
    """Raises AttributeError where the pipeline has no such constant any more."""
    modules = [module for module in map(import_module, TUNED) if hasattr(module, name)]
    if not modules:
        raise AttributeError(f"none of {', '.join(TUNED)} has {name}")
    for module in modules:
        setattr(module, name, value)


if __name__ == "__main__":
    sys.exit(run(Order.read(Path(sys.argv[1]))))
