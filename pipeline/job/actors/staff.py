"""The workers of a job on its cluster: as many as have room, or fewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.config import ClusterConfig, JobConfig
from pipeline.errors import WorkerError
from pipeline.input.shards import CHUNK_ROWS
from pipeline.job.actors.cluster import Node, Slot, check_room, share_out
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.job.actors.ray_pool import RayPool
from pipeline.job.actors.row_actor import WorkerFactory
from pipeline.native.cure import with_cuda
from pipeline.native.library import Library
from pipeline.native.own_process import Died, output_of

FIRST_ROWS = 64
"""Rows of a CPU worker's chunks before its pace is known: something is committed soon, however slow it is."""
_STALL_SLACK = 60.0
NO_GPU = (
    "This machine has a GPU, but llama.cpp was compiled without GPU support: the job runs on the CPU. "
    f"To use an NVIDIA GPU: {with_cuda()}"
)


@dataclass(frozen=True)
class Staff:
    """slot: what each worker is given. room: how many workers the cluster has room for. note: for people."""

    pool: RayPool
    slot: Slot
    room: int
    note: str

    @property
    def first_rows(self) -> int:
        """Of a chunk, before the workers' pace is known."""
        return CHUNK_ROWS if self.slot.gpus else FIRST_ROWS


@contextmanager
def staffed(
    job: JobConfig, build: WorkerFactory, ray: RayCluster, most: int | None = None
) -> Iterator[Staff]:
    """The job's workers while inside. most: of them; None for as many as have room. Raises JobError."""
    lookout = ray.join()
    machines = lookout.sight.nodes
    cluster = usable(job.cluster, machines) if ray.local else job.cluster
    slot, room = share_out(cluster, machines)
    if ray.local:
        check_room(slot, machines)

    def size(nodes: Sequence[Node]) -> int:
        found = share_out(cluster, nodes)[1]
        return found if most is None else min(most, found)

    stall = job.retry.row_deadline * job.retry.max_attempts + _STALL_SLACK
    pool = RayPool(build, slot, size, lookout, job.cluster.patience, name=job.name, stall=stall)
    try:
        yield Staff(pool, slot, room, NO_GPU if cluster != job.cluster else "")
    finally:
        # Before anything else: whoever stops a job may not wait for long.
        pool.close()


def usable(cluster: ClusterConfig, machines: Sequence[Node]) -> ClusterConfig:
    """`cluster` without GPUs where that is left to us and this machine's llama.cpp can't use them.

    For a cluster that is this machine."""
    if cluster.gpus_per_actor != "auto" or not any(node.gpus for node in machines):
        return cluster
    return cluster if _llama_sees_gpu() else cluster.model_copy(update={"gpus_per_actor": 0.0})


def _llama_sees_gpu() -> bool:
    """Asked in a process of its own: llama.cpp may end the process that loads it, and takes a GPU's memory.

    Where it dies, True: the trials of the workers say what is wrong with it, and what mends it."""
    try:
        return Library.from_json(output_of("pipeline.native.library_process")).gpu_support
    except (Died, WorkerError):
        return True
