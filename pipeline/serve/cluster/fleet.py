"""A model behind an address, by replicas on a Ray cluster: started, watched, drained."""

from __future__ import annotations

import logging
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from pipeline.config import JobConfig
from pipeline.errors import ConfigError, JobError
from pipeline.job.actors.cluster import Slot, check_room, share_out
from pipeline.job.actors.lookout import Lookout
from pipeline.job.actors.patience import Patience
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.job.actors.staff import NO_GPU, usable
from pipeline.serve.cluster import application
from pipeline.serve.cluster.board import Board, Presented
from pipeline.serve.cluster.replica import BuildOn, Plan, build_in_slot
from pipeline.serve.cluster.within import within
from pipeline.serve.hello import hello
from pipeline.serve.keys import Keys
from pipeline.serve.serving import LAST_SECONDS, Address, listening

Say = Callable[[str], None]
LOOK_EVERY = 0.5
"""Seconds between looks at what Serve says until all replicas answer, and for keys that have changed."""
WATCH_EVERY = 2.0
"""The same from then on."""
START_SECONDS = 60.0
"""Replicas are given so long before it is said that none is ready."""
ANSWER_SECONDS = 20.0
"""Serve's controller has so long to answer."""
UNANSWERED = (RayError, RayServeException, TimeoutError)
_WHO, _CURE = "the service", "start the service again"
_BAD_START = "replicas died again and again while they started"


def serve_on_cluster(
    job: JobConfig,
    address: Address,
    keys: Keys | None,
    tell: Say,
    build: BuildOn = build_in_slot,
    advise: Say = lambda line: None,
    data: str | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and then until open requests have ended.

    tell, advise: as `serving.serve`. data: where files and batches lie; None for none.
    Raises JobError, and ConfigError where the address or the cluster is taken.
    """
    # Serve's own lines would come between ours.
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with RayCluster(job.cluster, _WHO, _CURE) as cluster:
        lookout = cluster.join()
        slot = _slot(job, cluster, lookout, advise)
        with _board(keys) as board, _started(address, cluster) as taken:
            application.deploy(Plan(job, slot, keys.digests if keys else None, taken.prefix, build, data))
            fleet = _Fleet(job, cluster, lookout, board, keys, advise)
            try:
                presented = fleet.await_all(taken)
                if presented:
                    for line in hello(taken.url, keys, presented.kind):
                        advise(line)
                    tell(f"serving {presented.model} at {taken.url}")
                    fleet.watch()
            finally:
                fleet.drain()


def _slot(job: JobConfig, cluster: RayCluster, lookout: Lookout, advise: Say) -> Slot:
    """What each replica is given, as workers of a job are. Raises ConfigError."""
    machines = lookout.sight.nodes
    config = job.cluster.model_copy(update={"actors": job.serve.most_replicas})
    if cluster.local:
        fit = usable(config, machines)
        if fit != config:
            advise(NO_GPU)
        config = fit
    slot, _ = share_out(config, machines)
    room = sum(slot.fits(node) for node in machines)
    if cluster.local:
        check_room(slot, machines)
        if room < job.serve.most_replicas:
            raise ConfigError(
                f"serve.replicas: this machine has room for {room} with {slot.cpus:g} CPUs and {slot.gpus:g} "
                "GPUs each: ask for fewer, or set cluster.cpus_per_actor or cluster.gpus_per_actor"
            )
    return slot


@contextmanager
def _board(keys: Keys | None) -> Iterator[Board]:
    board = Board.put_up(keys.digests if keys else None)
    try:
        yield board
    finally:
        board.take_down()


@contextmanager
def _started(address: Address, cluster: RayCluster) -> Iterator[Address]:
    """Serve, with its proxies at the address; inside, `address` with its port."""
    if others := application.others():
        raise ConfigError(
            f"Ray Serve runs on this cluster already, with {', '.join(others)}: use another cluster, or end "
            "it with `serve shutdown`"
        )
    # What a command has left that was killed.
    application.end_serve()
    with listening(address) as (taken, _):
        pass
    application.start_serve(taken, everywhere=not cluster.local)
    try:
        yield taken
    finally:
        if not cluster.local:  # Else it ends with the cluster.
            with suppress(*UNANSWERED):
                within(ANSWER_SECONDS, application.end_serve)


class _Fleet:
    """The service once it is deployed."""

    def __init__(
        self,
        job: JobConfig,
        cluster: RayCluster,
        lookout: Lookout,
        board: Board,
        keys: Keys | None,
        advise: Say,
    ) -> None:
        self._job, self._cluster, self._lookout = job, cluster, lookout
        self._board, self._keys, self._advise = board, keys, advise
        self._digests = keys.digests if keys else None
        self._patience = Patience(job.cluster.patience, START_SECONDS, who=_WHO, cure=_CURE)
        self._seen: ApplicationStatusOverview | None = None
        self._presented: Presented | None = None
        self._running = 0

    def await_all(self, address: Address) -> Presented | None:
        """Waits until /health answers at all replicas; None where a signal came before. Raises JobError."""
        while not self._told_to_stop:
            self._look()
            seen = self._seen
            if self._presented and seen and seen.status == ApplicationStatus.RUNNING and _answers(address):
                self._running = application.running(seen)
                return self._presented
            time.sleep(LOOK_EVERY)
        return None

    def watch(self) -> None:
        """Returns after a signal. Raises JobError."""
        looked = time.monotonic()
        while not self._told_to_stop:
            time.sleep(LOOK_EVERY)
            if time.monotonic() - looked >= WATCH_EVERY:
                self._look()
                self._bring_keys()
                self._say_how_many()
                looked = time.monotonic()

    def drain(self) -> None:
        """New requests are refused; open ones have `serve.grace` seconds, or until the second signal."""
        try:
            within(ANSWER_SECONDS, application.take_away)
            end = time.monotonic() + self._job.serve.grace + 2 * LAST_SECONDS
            while time.monotonic() < end and self._cluster.stop.signals < 2:
                if within(ANSWER_SECONDS, application.overview) is None:
                    break
                time.sleep(LOOK_EVERY / 2)
            # Proxies have to write what they were given last.
            time.sleep(LOOK_EVERY)
        except UNANSWERED as error:
            self._advise(f"the service could not be drained: {error or type(error).__name__}")

    @property
    def _told_to_stop(self) -> bool:
        return self._cluster.stop.signals > 0

    def _look(self) -> None:
        """What Serve says. Its controller may be away for a while: replicas and proxies go on without it."""
        if news := self._lookout.news():
            self._advise(news)
        try:
            self._seen = within(ANSWER_SECONDS, application.overview)
            trouble = self._trouble()
        except UNANSWERED as error:
            trouble = f"Ray Serve's controller doesn't answer ({type(error).__name__})"
        if note := self._patience.heed(trouble):
            self._advise(note)

    def _trouble(self) -> str:
        """Why no replica answers; "" where one does. Raises JobError where none ever will."""
        seen = self._seen
        self._presented, failure = self._board.state()
        if seen and application.running(seen):
            return ""
        if failure:
            raise failure
        if seen and (reason := application.failed(seen)):
            raise JobError(f"{_BAD_START}: {reason}")
        return "no replica is ready"

    def _say_how_many(self) -> None:
        running = application.running(self._seen) if self._seen else 0
        if running != self._running:
            self._running = running
            self._advise(f"replicas that answer: {running}")

    def _bring_keys(self) -> None:
        """To the replicas, where the file has changed."""
        if self._keys and (digests := self._keys.digests) != self._digests:
            with suppress(*UNANSWERED):  # Else the next time.
                self._board.set_digests(digests)
                self._digests = digests


def _answers(address: Address) -> bool:
    """Whether /health does, through the proxy on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
    url = replace(address, host=host).url.removesuffix("/v1")
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=LOOK_EVERY * 4) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
