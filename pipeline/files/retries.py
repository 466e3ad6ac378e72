"""Actions on storage that are tried again while their failure may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import NightherdError, StorageError

T = TypeVar("T")

TRIES = 5
"""With the pauses between them: up to 17 seconds."""
_FIRST_PAUSE = 0.2
_GROWTH = 4
PATIENCE = 60.0
"""Seconds after which nothing is tried again: libraries behind object stores try for minutes themselves."""
# The libraries behind object stores raise errors of their own when a network fails.
_CLIENTS = {"aiohttp", "azure", "botocore", "gcsfs", "google", "httpx", "httpx2", "requests", "urllib3"}
_REFUSALS = (FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)


def retried(complaint: str, action: Callable[[], T], tries: int = TRIES, patience: float | None = None) -> T:
    """The action's result. `complaint` begins the message of the StorageError that it ends in otherwise.

    What can't pass is raised at once: FileNotFoundError and what isn't storage's as it is.
    patience: PATIENCE, but more for actions that take long when all is well.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    for pause in [*pauses(tries), None]:
        try:
            return action()
        except Exception as error:
            if isinstance(error, FileNotFoundError) or not _is_storage(error):
                raise
            if pause is None or isinstance(error, _REFUSALS) or time.monotonic() > deadline:
                raise StorageError(f"{complaint}: {error or type(error).__name__}") from error
            sleep(pause)
    raise AssertionError("unreachable")


def pauses(tries: int) -> list[float]:
    """The seconds to wait between tries. They are random, so that many writers don't come back at once."""
    return [_FIRST_PAUSE * _GROWTH**n * random.uniform(0.5, 1) for n in range(tries - 1)]


def sleep(seconds: float) -> None:
    """Waits between two tries."""
    time.sleep(seconds)


def _is_storage(error: Exception) -> bool:
    if isinstance(error, NightherdError):
        return False
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS
