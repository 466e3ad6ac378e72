"""What there is of the cluster, seen from a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import ray
from ray.exceptions import RayError

from pipeline.job.actors.cluster import Node, draining, nodes
from pipeline.job.actors.patience import Patience

LOOK_EVERY = 1.0
"""Seconds between looks at the cluster's machines."""
SILENT_AFTER = 8.0
"""Seconds without an answer after which the cluster's head counts as silent."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The machines that are alive, and the ids of those that are about to go. at: when they were seen."""

    nodes: tuple[Node, ...]
    draining: frozenset[str]
    at: float


class Lookout:
    """Asks Ray for its machines again and again. Where the head is gone, such a call never returns."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        """patience: how long the job waits for a cluster on which nothing can run."""
        self._patience, self._clock = patience, clock
        self._here = ray.get_runtime_context().get_node_id()
        self._end = threading.Event()
        self.sight = self._look()
        threading.Thread(target=self._watch, name="lookout", daemon=True).start()

    def news(self) -> str:
        """What is to be said of the cluster now, "" for nothing. Raises ClusterLost."""
        return self._patience.heed(self.trouble)

    @property
    def trouble(self) -> str:
        """Why nothing can run on this cluster; "" where something can, as far as is known."""
        silent = self._clock() - self.sight.at
        if silent > SILENT_AFTER:
            return "the head of the Ray cluster (its GCS) does not answer any more"
        if not self.sight.nodes:
            return "no machine of the Ray cluster is alive any more"
        if self._here not in {node.id for node in self.sight.nodes}:
            return "Ray's process on this machine (its raylet) is gone"
        return ""

    def close(self) -> None:
        self._end.set()

    def _look(self) -> Sight:
        return Sight(tuple(nodes()), draining(), self._clock())

    def _watch(self) -> None:
        while not self._end.wait(LOOK_EVERY):
            # What is wrong shows by the age of the last sight.
            with suppress(RayError, OSError, RuntimeError):
                self.sight = self._look()
