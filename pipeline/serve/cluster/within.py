"""Calls of Ray's that may never return, as where the cluster's head is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Found = TypeVar("Found")


def within(seconds: float, call: Callable[[], Found]) -> Found:
    """What `call` gives. Raises what it raises, and TimeoutError after `seconds`; it then goes on unheard."""
    future: Future[Found] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)
