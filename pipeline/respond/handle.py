"""A request that is being answered."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Handle(Generic[Made]):
    """result: the answer. It raises RowError where the request can't be answered, WorkerError where the
    engine broke, and CancelledError after `cancel`. prompt_tokens: of the request; 0 where it isn't known
    yet."""

    result: Future[Made]
    prompt_tokens: int = 0

    def cancel(self) -> None:
        """Nobody wants the answer: what it takes up is free after the engine's next step. From any thread,
        any number of times. `result.cancel` does the same."""
        self.result.cancel()


def then(source: Future[Given], make: Callable[[Given], Made]) -> Future[Made]:
    """What `make` makes of the result of `source`, or what either raises. Cancelled, it cancels `source`."""
    made: Future[Made] = Future()

    def settle(source: Future[Given]) -> None:
        if not made.set_running_or_notify_cancel():
            return
        try:
            made.set_result(make(source.result()))
        except BaseException as failure:
            made.set_exception(failure)

    made.add_done_callback(lambda made: made.cancelled() and source.cancel())
    source.add_done_callback(settle)
    return made
