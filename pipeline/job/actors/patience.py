"""How long a job waits while nothing can run."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.errors import ClusterLost

SAID_AGAIN = 600.0
RESUME = "what is committed stays: the same command resumes the job"


class Patience:
    """Waits for `seconds`; said_after: seconds of trouble after which it is said.

    who: waits. cure: what to do once it has waited for too long.
    """

    def __init__(
        self,
        seconds: float,
        said_after: float,
        clock: Callable[[], float] = time.monotonic,
        who: str = "the job",
        cure: str = RESUME,
    ) -> None:
        self._who, self._cure = who, cure
        self._seconds, self._said_after, self._clock = seconds, said_after, clock
        self._since: float | None = None
        self._said, self._said_at = "", 0.0

    def heed(self, trouble: str) -> str:
        """What is to be said now, "" for nothing. trouble: why nothing can run; "" where something can.

        Raises ClusterLost when it has lasted too long."""
        now = self._clock()
        if not trouble:
            over = "there is a place for workers again" if self._said else ""
            self._since, self._said = None, ""
            return over
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited >= self._seconds:
            raise ClusterLost(f"{trouble}, for {waited:.0f} s; {self._cure}")
        if waited < self._said_after or (trouble == self._said and now - self._said_at < SAID_AGAIN):
            return ""
        self._said, self._said_at = trouble, now
        return f"{trouble}; {self._who} waits for another {self._seconds - waited:.0f} s"
