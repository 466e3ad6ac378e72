"""A replica of the service: the app and its engine in one process of Ray Serve's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ray.exceptions import RayError
from starlette.types import ASGIApp

from pipeline.config import JobConfig
from pipeline.errors import JobError
from pipeline.job.actors.cluster import Slot
from pipeline.job.actors.row_actor import settle
from pipeline.respond.service import Service
from pipeline.serve.app import make_app
from pipeline.serve.batches.office import Office
from pipeline.serve.cluster.board import Board, Digests, Presented
from pipeline.serve.door import Door
from pipeline.serve.keys import Owners
from pipeline.serve.routes.batches import office_routers
from pipeline.serve.serving import build_on, open_office

KEYS_EVERY = 2.0
"""Seconds between looks for changed keys."""

BuildOn = Callable[[JobConfig, Slot], Service]


def build_in_slot(job: JobConfig, slot: Slot) -> Service:
    """The job's model on what the replica was given."""
    return build_on(job, threads=slot.threads, gpus=slot.gpus)


@dataclass(frozen=True)
class Plan:
    """What every replica is made from.

    digests: of the keys. prefix: of all paths. build: makes the service. data: where files and batches lie;
    None for none.
    """

    job: JobConfig
    slot: Slot
    digests: Digests | None
    prefix: str
    build: BuildOn = build_in_slot
    data: str | None = None


class Replica:
    """Serve calls the methods with the names that it knows."""

    def __init__(self, plan: Plan) -> None:
        """Raises JobError where no other replica would do better, and the command ends; all else is tried
        again by Serve."""
        settle(plan.slot)
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
        logging.getLogger("nightherd.serve").setLevel(logging.INFO)
        keys = Owners(plan.digests) if plan.digests is not None else None
        self._prefix = plan.prefix
        self._office: Office | None = None
        self._door = Door(plan.job.serve, keys, plan.job.request.defaults)
        self._ended = threading.Event()
        board = Board.find()
        try:
            self._service = plan.build(plan.job, plan.slot)
            self._open(plan)
        except JobError as failure:
            if board:
                board.fail(failure)
            raise
        if board:
            board.present(Presented(self._service.about.model, self._service.kind))
        if keys is not None:
            threading.Thread(target=self._keep_keys, name="keys", daemon=True).start()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        routers = office_routers(self._office) if self._office else ()
        return make_app(self._door, prefix=self._prefix, routers=routers)

    def check_health(self) -> None:
        """Raises what the engine is broken by: Serve puts another replica in the place of this one."""
        if failure := self._door.failure:
            raise failure

    def __del__(self) -> None:
        self._ended.set()
        if self._office:
            self._office.close()
        self._service.close()

    def _open(self, plan: Plan) -> None:
        """Each replica takes up batches: they show each other which ones they have."""
        if plan.data is not None:
            self._office = Office(plan.data)
            open_office(self._office, plan.job, self._service, self._door)
        self._door.open(self._service)

    def _keep_keys(self) -> None:
        """Changes of the file of keys come by the command. Without it, those of before stay valid."""
        while not self._ended.wait(KEYS_EVERY):
            with suppress(RayError, TimeoutError):
                if (board := Board.find()) and (digests := board.digests()) is not None:
                    self._door.keys = Owners(digests)
