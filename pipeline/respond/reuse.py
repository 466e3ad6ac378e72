"""Equal requests with one possible answer are computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

Answer = TypeVar("Answer")

_ROOM = 2_000_000


class Elsewhere(Protocol[Answer]):
    """Answers that others have given."""

    def look(self, keys: Sequence[bytes]) -> Mapping[bytes, Answer]:
        """The answers to those of `keys` that are known."""

    def note(self, answers: Mapping[bytes, Answer]) -> None:
        """Tells the others."""


class Claims(Generic[Answer]):
    """Answers by key while there is room; the least recently used go first. Safe for several threads.

    Whoever gets a new key has to answer it before waiting for others' answers.
    """

    def __init__(self, room: int = _ROOM) -> None:
        """room: what the sizes of all answers that are kept may add up to."""
        self._room = room
        self._answers: OrderedDict[bytes, Future[Answer]] = OrderedDict()
        self._sizes: dict[bytes, int] = {}
        self._held = 0
        self._lock = threading.Lock()

    def claim(self, key: bytes | None) -> tuple[Future[Answer], bool]:
        """The answer to come, and whether the caller has to give it. No two rows share a key of None."""
        with self._lock:
            if key is None or key not in self._answers:
                answer: Future[Answer] = Future()
                if key is not None:
                    self._answers[key] = answer
                return answer, True
            self._answers.move_to_end(key)
            return self._answers[key], False

    def keep(self, key: bytes | None, size: int) -> None:
        """The answer is known, and later rows may have it."""
        with self._lock:
            if key is not None and key in self._answers:
                self._sizes[key] = size
                self._held += size
            while self._held > self._room:
                self._drop(next(key for key in self._answers if key in self._sizes))

    def forget(self, key: bytes | None) -> None:
        """The next row with this key is computed anew."""
        with self._lock:
            if key is not None and key in self._answers:
                self._drop(key)

    def _drop(self, key: bytes) -> None:
        del self._answers[key]
        self._held -= self._sizes.pop(key, 0)
