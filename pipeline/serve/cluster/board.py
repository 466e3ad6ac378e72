"""What the command and the replicas tell each other beside Serve: keys, the model, final errors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from pipeline.errors import ConfigError, JobError
from pipeline.serve.cluster.within import within

Digests = Mapping[bytes, str]
_NAME, _NAMESPACE = "board", "nightherd-serve"
_SOON = 10.0
"""Seconds that an answer may take."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What a replica serves. model: its id."""

    model: str
    kind: Literal["generate", "embed"]


class _Board:
    """Runs in an actor of its own, as long as the command runs."""

    def __init__(self, digests: Digests | None) -> None:
        self._digests = digests
        self._presented: Presented | None = None
        self._failure: JobError | None = None

    def state(self) -> tuple[Presented | None, JobError | None]:
        return self._presented, self._failure

    def digests(self) -> Digests | None:
        return self._digests

    def set_digests(self, digests: Digests) -> None:
        self._digests = digests

    def present(self, presented: Presented) -> None:
        self._presented, self._failure = presented, None

    def fail(self, failure: JobError) -> None:
        self._failure = failure


class Board:
    """There is one on a cluster, while a command serves there."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def put_up(cls, digests: Digests | None) -> Board:
        """digests: of the keys; None where none are asked for. Raises ConfigError where there is a board."""
        try:
            actor = ray.remote(_Board).options(name=_NAME, namespace=_NAMESPACE, num_cpus=0)
            return cls(actor.remote(digests))
        except ValueError:
            raise ConfigError(
                "nightherd serve runs on this Ray cluster already: stop it first, or use another cluster"
            ) from None

    @classmethod
    def find(cls) -> Board | None:
        """None where the command is gone."""
        with suppress(ValueError, RayError):
            return cls(ray.get_actor(_NAME, _NAMESPACE))
        return None

    def state(self) -> tuple[Presented | None, JobError | None]:
        """What is served, and why a replica can't ever start; each None where it isn't known."""
        found: tuple[Presented | None, JobError | None] = ray.get(self._actor.state.remote(), timeout=_SOON)
        return found

    def digests(self) -> Digests | None:
        found: Digests | None = ray.get(self._actor.digests.remote(), timeout=_SOON)
        return found

    def set_digests(self, digests: Digests) -> None:
        ray.get(self._actor.set_digests.remote(digests), timeout=_SOON)

    def present(self, presented: Presented) -> None:
        ray.get(self._actor.present.remote(presented), timeout=_SOON)

    def fail(self, failure: JobError) -> None:
        ray.get(self._actor.fail.remote(failure), timeout=_SOON)

    def take_down(self) -> None:
        """In a moment; it ends with the command in any case."""
        with suppress(RayError, TimeoutError):
            within(_SOON, lambda: ray.kill(self._actor))
