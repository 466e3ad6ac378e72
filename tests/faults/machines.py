"""A Ray cluster of several nodes on this machine, whose processes can be killed one by one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray._common.utils
from ray._private.node import Node
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

ROOT = Path(__file__).resolve().parents[2]


class Machines:
    """A head without CPUs, on which the driver runs, and `nodes` with CPUs, by their hexadecimal ids."""

    def __init__(self, cpus: tuple[int, ...] = (1, 1), **head: Any) -> None:
        # Workers import the fakes from here.
        with environment({"PYTHONPATH": str(ROOT)}):
            self.cluster = Cluster()
            self.cluster.add_node(**{"num_cpus": 0, "include_dashboard": False, **head})
        # Only our own drivers should find it, not whatever else starts Ray on this machine.
        ray._common.utils.reset_ray_address()
        self.address: str = self.cluster.gcs_address
        self.nodes: dict[str, Node] = {}
        self.going: set[str] = set()
        for count in cpus:
            self.add(count)

    def add(self, cpus: int = 1, settings: Mapping[str, str] | None = None) -> str:
        """Starts a node; its id. settings: environment variables of its raylet."""
        with environment({"PYTHONPATH": str(ROOT), **(settings or {})}):
            node = self.cluster.add_node(num_cpus=cpus)
        self.nodes[node.node_id] = node
        return str(node.node_id)

    def lose(self, node_id: str) -> None:
        """SIGKILL for a node's raylet; its workers notice and end by themselves."""
        self.cluster.remove_node(self.nodes.pop(node_id), allow_graceful=False)

    def restore(self, count: int) -> None:
        """So many nodes again, of which none is going."""
        for node_id, node in list(self.nodes.items()):
            dead = node.all_processes["raylet"][0].process.poll() is not None
            if dead or node_id in self.going or len(self.nodes) > count:
                self.lose(node_id)
        while len(self.nodes) < count:
            self.add()

    def drain(self, node_id: str, seconds: float) -> None:
        """What a cloud says of a spot machine: it goes in so many seconds."""
        accepted, why = GcsClient(address=self.address).drain_node(
            node_id,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "the spot machine goes",
            int((time.time() + seconds) * 1000),
        )
        assert accepted, why
        self.going.add(node_id)

    def processes(self, title: str = "ray::", node_id: str | None = None) -> list[int]:
        """The worker processes of one node, or of all, whose titles begin so."""
        nodes = [*self.nodes.values(), self.cluster.head_node] if node_id is None else [self.nodes[node_id]]
        raylets = {raylet_of(node) for node in nodes if node}
        return [pid for pid, parent in parents() if parent in raylets and title_of(pid).startswith(title)]

    @staticmethod
    def processes_of(node: Node, title: str) -> list[int]:
        """The processes of a node's raylet, workers and agents, whose titles begin so."""
        return [
            pid for pid, parent in parents() if parent == raylet_of(node) and title_of(pid).startswith(title)
        ]

    def lose_all(self) -> None:
        """SIGKILL for every raylet, every worker and the GCS at once, as when the power goes."""
        workers = self.processes()
        for node in [self.cluster.head_node, *self.nodes.values()]:
            for infos in node.all_processes.values():
                for info in infos:
                    kill(info.process.pid)
        for pid in workers:
            kill(pid)

    def close(self) -> None:
        self.cluster.shutdown()


def raylet_of(node: Node) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """False if the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def title_of(pid: int) -> str:
    """The process's title, "" if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def parents() -> Iterator[tuple[int, int]]:
    """Each process and its parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(state[1])


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def until(condition: Callable[[], Any], seconds: float, what: str, pause: float = 0.02) -> Any:
    """The condition's value when it is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return value
