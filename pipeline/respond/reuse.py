"""Equal requests with one possible answer are computed once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

_KEPT = 4096


class Claims(Generic[Answer]):
    """Answers by key, those of the last `kept` keys. Safe for several threads.

    Whoever gets a new key has to answer it before waiting for others' answers.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._answers: OrderedDict[bytes, Future[Answer]] = OrderedDict()
        self._lock = threading.Lock()

    def claim(self, key: bytes | None) -> tuple[Future[Answer], bool]:
        """The answer to come, and whether the caller has to give it. No two rows share a key of None."""
        with self._lock:
            if key is None or key not in self._answers:
                answer: Future[Answer] = Future()
                if key is not None:
                    self._answers[key] = answer
                    if len(self._answers) > self._kept:
                        self._answers.popitem(last=False)
                return answer, True
            self._answers.move_to_end(key)
            return self._answers[key], False

    def forget(self, key: bytes | None) -> None:
        """The next row with this key is computed anew."""
        with self._lock:
            if key is not None:
                self._answers.pop(key, None)
