"""Chores of a simulated cluster, as `pipeline.job.actors.pool.Assembly` asks for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from pipeline.input.shards import ShardPlan
from pipeline.tally import Tally
from tests.soak.cluster import Cluster
from tests.soak.world import Process

AT_ONCE = 3
_BATCH = 2


@dataclass(eq=False)
class Chore:
    """Shards that one process puts together."""

    plans: list[ShardPlan]
    process: Process
    tallies: list[Tally] = field(default_factory=list)
    error: Exception | None = None
    ended: bool = False


class SimulatedAssembly:
    """A chore whose process died is done again."""

    def __init__(
        self, cluster: Cluster, commit: Callable[[ShardPlan], Tally], phase: int, prefix: str
    ) -> None:
        self._cluster, self._commit, self._phase, self._prefix = cluster, commit, phase, prefix
        self._waiting: deque[list[ShardPlan]] = deque()
        self._running: list[Chore] = []
        self._numbers = count(1)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running

    def put(self, plan: ShardPlan) -> None:
        if self._waiting and len(self._waiting[-1]) < _BATCH:
            self._waiting[-1].append(plan)
        else:
            self._waiting.append([plan])

    def done(self) -> list[Tally]:
        while self._waiting and len(self._running) < AT_ONCE and self._start():
            pass
        for chore in list(self._running):
            if chore.ended and chore.process.cut is None:
                self._running.remove(chore)
                self._cluster.world.kill(chore.process)
                if chore.error:
                    raise chore.error
                return chore.tallies
            if self._cluster.gone(chore.process):
                self._running.remove(chore)
                self._cluster.end(chore.process)
                self._waiting.append(chore.plans)
        return []

    def _start(self) -> bool:
        machine = self._cluster.place()
        if not machine:
            return False
        name = f"{self._prefix}-chore-{next(self._numbers)}"
        process = self._cluster.process("chore", name, machine, self._phase)
        chore = Chore(self._waiting.popleft(), process)
        self._running.append(chore)
        self._cluster.world.start(process, name, lambda: self._work(chore), 0.05)
        return True

    def _work(self, chore: Chore) -> None:
        try:
            for plan in chore.plans:
                chore.tallies.append(self._commit(plan))
        except Exception as error:
            self._cluster.world.note("failed", repr(error))
            chore.error = error
        chore.ended = True
