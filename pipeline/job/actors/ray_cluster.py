"""Joins a Ray cluster, or starts one on this machine, and leaves it again, even when it is gone."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from contextlib import ExitStack
from typing import Self

import ray

from pipeline.config import ClusterConfig
from pipeline.errors import ClusterLost
from pipeline.job.actors.cluster import nodes
from pipeline.job.actors.interrupts import Stop
from pipeline.job.actors.lookout import Lookout
from pipeline.job.actors.patience import RESUME, Patience

LOCAL_PATIENCE = 15.0
"""Seconds after which a local cluster that is gone is given up: it doesn't come back by itself."""
SAID_AFTER = 5.0
"""Seconds after which it is said that nothing can run on the cluster."""
LEAVING = 45.0
"""Seconds that Ray may take to shut down."""
_RECONNECT = "RAY_gcs_rpc_server_reconnect_timeout_s"


class RayCluster:
    """The cluster of RAY_ADDRESS, or one that runs on this machine, or else a local one that is started here.

    local: whether it was started here. stop: notes the signals that come while it is joined.
    It is joined when it is first needed, and left at the end.
    """

    def __init__(self, config: ClusterConfig, who: str = "the job", cure: str = RESUME) -> None:
        """who, cure: as `Patience`."""
        self._patience = config.patience
        self._who, self._cure = who, cure
        self._stack = ExitStack()
        self._lookout: Lookout | None = None
        self.local = False
        self.stop = Stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def join(self) -> Lookout:
        """Joins or starts the cluster, unless that is done. Raises ClusterLost."""
        if self._lookout is None:
            if not ray.is_initialized():
                self._start()
            # Ray sets signal handlers as it starts, so ours come after it.
            self._stack.enter_context(self.stop.on_signals())
            patience = min(self._patience, LOCAL_PATIENCE) if self.local else self._patience
            self._lookout = Lookout(Patience(patience, SAID_AFTER, who=self._who, cure=self._cure))
            self._stack.callback(self._lookout.close)
        return self._lookout

    @property
    def cpus(self) -> int:
        """Of all its machines together, once it is joined."""
        return int(sum(node.cpus for node in nodes()))

    def leave(self) -> None:
        """Leaves the cluster; one that was started here is stopped."""
        self._lookout = None
        self._stack.close()

    def _start(self) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # After so long without the cluster's head, Ray ends this process on the spot, without a word of ours.
        os.environ.setdefault(_RECONNECT, str(int(self._patience) + 120))
        try:
            ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        except Exception as error:  # Ray raises a bare one where its node doesn't come up in time.
            address = os.environ.get("RAY_ADDRESS")
            joined = address and address != "local"
            where = f"the Ray cluster at {address} can't be joined" if joined else "Ray can't be started"
            raise ClusterLost(f"{where}: {error}") from error
        self._stack.callback(_shut_down)
        # Ray has no public word for it: the process that starts a cluster holds its head node.
        head = ray._private.worker._global_node
        self.local = head is not None and head.is_head()


def _shut_down() -> None:
    """Where the cluster's head is gone, Ray may wait for it for ever."""
    started = ray._private.worker._global_node
    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(LEAVING)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)
        if started is not None:
            started.kill_all_processes(check_alive=False, allow_graceful=False)
