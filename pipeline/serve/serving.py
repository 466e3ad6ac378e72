"""A model behind an address, in this process: loaded, served, drained."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from pipeline.config import JobConfig
from pipeline.errors import ConfigError, JobError, MachineError
from pipeline.model.models import fetch_model
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.respond.generative_service import GenerativeService
from pipeline.respond.service import Service
from pipeline.serve.app import make_app
from pipeline.serve.batches.batch_job import Engine
from pipeline.serve.batches.office import Office
from pipeline.serve.door import Door
from pipeline.serve.hello import hello
from pipeline.serve.keys import ENVIRONMENT, Keys
from pipeline.serve.routes.batches import office_routers

Build = Callable[[JobConfig], Service]
IDLE_SECONDS = 75
"""A connection without a request is closed then. Proxies and clients keep theirs for 60 at most: where the
service closed it first, their next request would be lost."""
LAST_SECONDS = 2.0
"""What is still open at the end of `serve.grace` is told so, and has so long to hear it."""
LOOK_SECONDS = 0.5
"""How often the engine is looked at."""


@dataclass(frozen=True)
class Address:
    """Where the service listens. prefix: of its paths, for a proxy that passes them on as they are."""

    host: str = "127.0.0.1"
    port: int = 8000
    prefix: str = ""

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.prefix}/v1"


def keys_for(address: Address, file: Path | None) -> Keys | None:
    """The keys that clients must show; None for none, which only a local address may do without.

    Raises ConfigError."""
    keys = Keys.of_file(file) if file else Keys.of_environment()
    if keys is None and not address.is_local:
        raise ConfigError(
            f"--host {address.host} can be reached from other machines, and no API keys are given: name a "
            f"file with --api-key-file, or set {ENVIRONMENT}"
        )
    return keys


def build_here(job: JobConfig) -> Service:
    """The job's model on this machine, on its CPUs, and a GPU if llama.cpp can use one. Raises JobError."""
    from pipeline.engine.llama.devices import sees_gpu

    try:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return build_on(job, threads=threads, gpus=1.0 if sees_gpu() else 0.0)
    except MachineError as error:
        raise JobError(str(error)) from error


def build_on(job: JobConfig, *, threads: int, gpus: float) -> Service:
    """The job's model on a part of this machine. Raises JobError and MachineError."""
    from pipeline.job.build import build_service

    settings = job.model_dump(mode="json", include={"model", "engine", "request"})
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16).hexdigest()
    return build_service(job, digest, threads=threads, gpus=gpus)


def serve(
    job: JobConfig,
    address: Address,
    keys: Keys | None,
    tell: Callable[[str], None],
    build: Build = build_here,
    advise: Callable[[str], None] = lambda line: None,
    office: Office | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and then until open requests have ended.

    tell: called with the line that says where, once /health answers 200. build: makes the service.
    advise: called before, with lines that say how to ask. office: of files and batches; None for none.
    Raises JobError, also once the engine is broken, and ConfigError where the address is taken.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("nightherd.serve").setLevel(logging.INFO)
    door = Door(job.serve, keys, job.request.defaults)
    with listening(address) as (taken, listener):
        asyncio.run(_serve(job, door, keys, taken, listener, tell, build, advise, office))


@contextmanager
def listening(address: Address) -> Iterator[tuple[Address, socket.socket]]:
    """The address with its port, where any free one was asked for (0)."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: a client whose machine is gone is noticed in the end.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            listener.bind((address.host, address.port))
        except OSError as error:
            raise ConfigError(
                f"--host {address.host} --port {address.port}: can't listen there: {error.strerror or error}"
            ) from None
        yield Address(address.host, listener.getsockname()[1], address.prefix), listener


async def _serve(
    job: JobConfig,
    door: Door,
    keys: Keys | None,
    address: Address,
    listener: socket.socket,
    tell: Callable[[str], None],
    build: Build,
    advise: Callable[[str], None],
    office: Office | None,
) -> None:
    config = uvicorn.Config(
        make_app(door, prefix=address.prefix, routers=office_routers(office) if office else ()),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=int(job.serve.grace + LAST_SECONDS) + 1,
    )
    server = _Server(config, door)
    server.listen_to_signals()
    serving = asyncio.ensure_future(server.serve([listener]))
    service = None
    try:
        # Until the model is there, /health says that it is being loaded.
        service = await asyncio.to_thread(build, job)
        if not server.should_exit:
            if office:
                open_office(office, job, service, door)
            door.open(service)
            for line in hello(address.url, keys, service.kind):
                advise(line)
            tell(f"serving {service.about.model} at {address.url}")
        await _until_broken(door, server, serving)
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        if office:
            await asyncio.to_thread(office.close)
        if service is not None:
            service.close()


def open_office(office: Office, job: JobConfig, service: Service, door: Door) -> None:
    """Batches are computed from now on."""
    assert isinstance(service, GenerativeService | EmbeddingService)
    office.open(Engine(service, job, lambda: fetch_model(job.model).sha256), door.metrics.computed)


async def _until_broken(door: Door, server: _Server, serving: asyncio.Future[None]) -> None:
    """Waits for the end of `serving`. Raises JobError where a broken engine is the cause of it: a new process
    is needed, and whoever watches this one starts it."""
    while not serving.done() and not door.failure:
        await asyncio.wait({serving}, timeout=LOOK_SECONDS)
    if door.failure:
        server.stop_broken()
        await serving
        raise JobError(f"{door.failure}; start the service again")
    await serving


class _Server(uvicorn.Server):
    """uvicorn, with an end that tells clients: it raises no signal again when all is served."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `listen_to_signals`'s: uvicorn's own way ends the process by the signal."""
        yield

    def listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    def stop_broken(self) -> None:
        """Who asks in these seconds is told why; who doesn't read to the end is cut off."""
        loop = asyncio.get_running_loop()
        loop.call_later(LAST_SECONDS, self._end)
        loop.call_later(2 * LAST_SECONDS, self._end)

    def _end(self) -> None:
        """Refuses what is new; called again, it cuts off what is open."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def _stop(self) -> None:
        """New requests are refused; open ones have their time. The second signal ends these too."""
        draining = self.should_exit
        self._end()
        if draining:
            return
        self._door.state = "draining"
        asyncio.get_running_loop().call_later(self._door.config.grace, self._door.turn_away)
