"""A contender in a process of its own.

OpenMP counts the threads of a whole process: with two models in one, the threads of both sleep at
every barrier, because there are more of them than processors.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from bench_tasks import Result


class Apart:
    """Builds `contender` in a new process, and runs it there."""

    def __init__(self, contender: Callable[..., Any], *args: Any, **settings: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender, args, settings), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, *args: Any) -> tuple[Result, list[int]]:
        """What its `run` returned, and the tokens that each row got, where it says so."""
        self._pipe.send(args)
        try:
            answer: tuple[Result, list[int]] = self._pipe.recv()
        except EOFError:
            raise SystemExit("a contender ended: see its message above") from None
        return answer

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, contender: Callable[..., Any], args: Any, settings: Any) -> None:
    subject = contender(*args, **settings)
    while True:
        result = subject.run(*pipe.recv())
        pipe.send((result, getattr(subject, "out", [])))
