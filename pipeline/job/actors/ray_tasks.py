"""Small chores done on the cluster, in batches: planning shards, putting them together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.errors import JobError, WorkersExhausted

T = TypeVar("T")
R = TypeVar("R")


class Chores(Generic[T, R]):
    """Applies `function` to every item that is put, up to `batch` in a task and `at_once` tasks at a time.

    They take no CPU share, as they mostly wait for storage. A task whose process died is done again.
    spread: over all machines, as they compute after all.
    """

    def __init__(
        self, function: Callable[[T], R], *, batch: int = 32, at_once: int = 4, spread: bool = False
    ) -> None:
        where = {"scheduling_strategy": "SPREAD"} if spread else {}
        self._task: Any = ray.remote(_each).options(num_cpus=0, max_retries=10, **where)
        self._function, self._batch, self._at_once = function, batch, at_once
        self._waiting: deque[T] = deque()
        self._running: list[Any] = []

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running

    def put(self, item: T) -> None:
        self._waiting.append(item)

    def done(self, timeout: float = 0.0) -> list[R]:
        """Starts what can be started and returns what is finished, in no order. Raises JobError."""
        while self._waiting and len(self._running) < self._at_once:
            items = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            self._running.append(self._task.remote(self._function, items))
        if not self._running:
            return []
        finished, self._running = ray.wait(self._running, num_returns=1, timeout=timeout)
        return [result for call in finished for result in _answer(call)]


def _each(function: Callable[[T], R], items: list[T]) -> list[R]:
    return [function(item) for item in items]


def _answer(call: Any) -> list[Any]:
    try:
        answer: list[Any] = ray.get(call)
    except RayTaskError as error:
        if isinstance(error.cause, JobError):
            raise error.cause from None
        raise
    except RayError as error:
        raise WorkersExhausted(f"a task died again and again: {error}") from error
    return answer
