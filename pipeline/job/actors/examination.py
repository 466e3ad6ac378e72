"""One call on each machine of a cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import WorkerError
from pipeline.job.actors.cluster import Node, nodes

T = TypeVar("T")


def join_cluster() -> bool:
    """Joins the cluster of RAY_ADDRESS, or one that runs on this machine; False where there is none.

    RAY_ADDRESS=local means none, as it does for Ray.
    """
    if os.environ.get("RAY_ADDRESS") == "local":
        return False
    try:
        ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
    except ConnectionError:
        return False
    return True


def leave_cluster() -> None:
    ray.shutdown()


def on_each_machine(function: Callable[[Node], T]) -> dict[str, T | WorkerError]:
    """What `function` returns on each machine that is alive, by the machine's name.

    The calls take no share of the machines' CPUs: a job may be running. A machine on which the call dies
    has the error instead.
    """
    calls = {}
    for node in nodes():
        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        task: Any = ray.remote(_apply).options(num_cpus=0, scheduling_strategy=where, max_retries=0)
        calls[str(node)] = task.remote(function, node)
    return {name: _result(call) for name, call in calls.items()}


def this_machine() -> str:
    """The machine's name."""
    return socket.gethostname()


def _apply(function: Callable[[Node], T], node: Node) -> T:
    return function(node)


def _result(call: Any) -> Any:
    try:
        return ray.get(call)
    except RayError as error:
        return WorkerError(f"the machine could not be examined: {str(error).splitlines()[0]}")
