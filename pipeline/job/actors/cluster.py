"""The Ray cluster that a job runs on, and how its machines are shared out among workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.config import ClusterConfig
from pipeline.errors import ConfigError

MOST_CPUS = 8
"""CPUs of one worker by default: beyond that, two workers decode more than one with twice the threads."""
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Node:
    """A machine's resources as Ray counts them. id: hexadecimal; address: as people know it."""

    cpus: float
    gpus: float = 0.0
    id: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"machine {self.address} (Ray node {self.id[:8]})"


@dataclass(frozen=True, slots=True)
class Slot:
    """What one worker is given. Fractions are shares of a CPU or GPU."""

    cpus: float
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))

    def fits(self, node: Node) -> int:
        """How many such workers fit on a machine."""
        rooms = [int(node.cpus / self.cpus + _ROUNDING)] if self.cpus else []
        if 0 < self.gpus < 1:  # A share is of one GPU: what several have left over makes no other.
            rooms += [int(node.gpus) * int(1 / self.gpus + _ROUNDING)]
        elif self.gpus:
            rooms += [int(node.gpus / self.gpus + _ROUNDING)]
        return min(rooms, default=0)


def nodes() -> list[Node]:
    """The machines that are alive now."""
    described: Callable[[], list[dict[str, Any]]] = ray.nodes
    return [_node(node["Resources"], node) for node in described() if node["Alive"]]


def _node(resources: dict[str, float], node: dict[str, Any]) -> Node:
    address = node["NodeManagerAddress"]
    return Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0), node["NodeID"], address)


def draining() -> frozenset[str]:
    """The hexadecimal ids of the machines that are about to go, as spot machines do after a notice."""
    # Ray's libraries ask this way; there is no public word for it.
    return frozenset(ray._private.state.state.get_draining_nodes())


def share_out(config: ClusterConfig, machines: Sequence[Node]) -> tuple[Slot, int]:
    """What each worker is given, and how many workers there are, at least one.

    "auto": a worker for each GPU; without GPUs, workers of up to MOST_CPUS CPUs, as many as fit.
    """
    gpus = _gpus_each(config, machines)
    slot = Slot(_cpus_each(config, machines, gpus), gpus)
    count = sum(slot.fits(node) for node in machines) if config.actors == "auto" else config.actors
    return slot, max(1, count)


def check_room(slot: Slot, machines: Sequence[Node]) -> None:
    """Raises ConfigError where no machine has room for a worker, ever."""
    if not any(slot.fits(node) for node in machines):
        raise ConfigError(
            f"cluster.cpus_per_actor, cluster.gpus_per_actor: no machine has {slot.cpus:g} CPUs "
            f"and {slot.gpus:g} GPUs for a worker"
        )


def _gpus_each(config: ClusterConfig, machines: Sequence[Node]) -> float:
    if config.gpus_per_actor != "auto":
        return config.gpus_per_actor
    gpus = sum(node.gpus for node in machines)
    if config.actors == "auto" or config.actors <= gpus:
        return min(1.0, gpus)
    # More workers than GPUs: as many on each, since a share is always of one GPU.
    return 1 / -(-config.actors // int(gpus)) if gpus else 0.0


def _cpus_each(config: ClusterConfig, machines: Sequence[Node], gpus: float) -> float:
    if config.cpus_per_actor != "auto":
        return config.cpus_per_actor
    if gpus:
        # Every machine's GPUs must get their workers, so the one with the fewest CPUs to a GPU decides.
        lean = min((node.cpus / node.gpus for node in machines if node.gpus and node.cpus), default=1.0)
        return max(0.1, min(MOST_CPUS, int(lean * gpus)))
    largest = max((node.cpus for node in machines), default=1.0)
    if config.actors == "auto":
        return max(1.0, largest // -(-largest // MOST_CPUS))
    share = sum(node.cpus for node in machines) / config.actors
    return min(largest, float(int(share)) if share >= 1 else max(0.01, int(share * 100) / 100))
