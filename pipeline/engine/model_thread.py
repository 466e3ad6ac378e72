"""The one thread on which llama.cpp lives.

GCC's OpenMP keeps a team of threads for each thread that starts one. Where a process has more of them than
processors, they sleep at every barrier: a model that was loaded on one thread and is used on another runs at
less than half of its speed wherever loading starts a team (weights converted for AMX). So whatever makes,
uses or frees a model runs here; looking up tokens starts no team, and may be done anywhere.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")

_here = threading.local()


class ModelThread:
    """Runs calls one after the other, in order. It ends when it is closed and holds nothing any more.

    It is a daemon, so that a worker that nobody closed does not keep its process alive.
    """

    def __init__(self, name: str = "model") -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._held = 0
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    @staticmethod
    def current() -> ModelThread | None:
        """The one that runs the caller, if any does."""
        found: ModelThread | None = getattr(_here, "owner", None)
        return found

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        """The result of `function` to come. Raises RuntimeError once the thread is closed."""
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the model's thread is closed")
            self._calls.put(partial(_settle, future, function))
        return future

    def call(self, function: Callable[[], Result]) -> Result:
        """The result of `function`, which runs at once where the caller is on this thread already."""
        return function() if ModelThread.current() is self else self.submit(function).result()

    def close(self) -> None:
        """Takes no further calls. Those before are done, and what is held is freed when nobody uses it."""
        with self._lock:
            self._closed = True
            self._calls.put(lambda: None)

    def hold(self) -> None:
        """Something was made on this thread that `free` will end. Only on the thread itself."""
        self._held += 1

    def free(self, function: Callable[[], object]) -> None:
        """Runs `function`, that ends something held, in turn. Called from anywhere, a finaliser too."""
        self._calls.put(partial(self._free, function))

    def _free(self, function: Callable[[], object]) -> None:
        self._held -= 1
        function()

    def _serve(self) -> None:
        _here.owner = self
        while not self._closed or self._held or not self._calls.empty():
            call = self._calls.get()
            call()
            # A call holds what it was given, which may be the last reference to a model.
            del call


class Handle:
    """An object of llama.cpp's, freed once nobody refers to it, on the thread that made it."""

    def __init__(self, value: Any, free: Callable[[Any], object], within: Handle | None = None) -> None:
        """free: llama.cpp's function for it; outside of a `ModelThread` it runs where the last user left.
        within: what it is a part of, which is freed later."""
        self.value = value
        owner = ModelThread.current()
        if owner:
            owner.hold()
        end = owner.free if owner else _run
        # At the end of the process the system frees all there is, and threads are gone by then.
        weakref.finalize(self, end, partial(_end, free, value, within)).atexit = False


def _end(free: Callable[[Any], object], value: Any, within: Handle | None) -> None:
    free(value)
    del within  # It was kept until now.


def _run(function: Callable[[], object]) -> None:
    function()


def _settle(future: Future[Result], function: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(function())
    except BaseException as failure:
        future.set_exception(failure)
