"""Actors whose calls or answers get lost on their way."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass
from pathlib import Path

import pipeline.job.actors.ray_pool
from pipeline.input.shards import ShardPlan
from pipeline.job.actors.cluster import Slot
from pipeline.job.actors.row_actor import Heartbeat, RowActor, WorkerFactory
from pipeline.job.assignment import Assignment
from pipeline.tally import Tally


@dataclass(frozen=True)
class Losses:
    """Probabilities: that work never arrives, that its answer never comes back, or an actor's life sign.

    starts: so many actors never say that they have started; each leaves a mark beside `marks`.
    first_pulse: the first life sign of every actor gets lost.
    """

    calls: float = 0.0
    answers: float = 0.0
    pulses: float = 0.0
    starts: int = 0
    marks: str = ""
    first_pulse: bool = False
    seed: int = 0

    def install(self) -> None:
        """From now on, the pool's actors lose messages."""
        if self != Losses(seed=self.seed):
            lossy = self

            class LossyActor(RowActor):
                def __init__(self, build: WorkerFactory, slot: Slot) -> None:
                    super().__init__(build, slot)
                    self._heard = False
                    self._chance = random.Random(f"{lossy.seed} {os.getpid()}")

                def start(self) -> None:
                    super().start()
                    if any(_first(f"{lossy.marks}.start-{n}") for n in range(lossy.starts)):
                        _never()

                def work(self, assignment: Assignment, plans: dict[str, ShardPlan]) -> Tally:
                    if self._chance.random() < lossy.calls:
                        _never()
                    tally = super().work(assignment, plans)
                    if self._chance.random() < lossy.answers:
                        _never()
                    return tally

                def pulse(self) -> Heartbeat:
                    first, self._heard = not self._heard, True
                    if self._chance.random() < lossy.pulses or (first and lossy.first_pulse):
                        _never()
                    return super().pulse()

            pipeline.job.actors.ray_pool.RowActor = LossyActor  # type: ignore[misc]


def _first(mark: str) -> bool:
    """Whether nobody has left that mark before."""
    try:
        Path(mark).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _never() -> None:
    threading.Event().wait()
