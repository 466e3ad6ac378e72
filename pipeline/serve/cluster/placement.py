"""Which replica gets a request: one that has computed its beginning, unless that one has too much to do."""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from hashlib import blake2b
from weakref import WeakSet

MOST_KNOWN = 50_000
"""Beginnings that are remembered."""
UNEVEN = 1.25
"""How much more than the average a replica may have to do because of what it has computed already."""


_all: WeakSet[Placement] = WeakSet()


class Placement:
    """What each replica has seen, and how much it has to do, as far as one proxy knows.

    Replicas are named by Serve's unique ids. What a replica has to do is what it was sent from here, what it
    is about to be sent, and what it has from elsewhere by its own word. Safe for several threads."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._sent: dict[str, int] = {}
        self._promised: Counter[str] = Counter()
        self._elsewhere: dict[str, int] = {}
        self._lock = threading.Lock()
        self._turn = 0
        _all.add(self)

    def order(self, replicas: Collection[str], beginnings: Sequence[str]) -> list[str]:
        """All of `replicas`, the best first.

        beginnings: as `beginnings.beginnings` gives them."""
        # Several proxies do alike with what neither has seen; what begins like nothing goes round.
        self._turn += 1
        first = beginnings[0] if beginnings else str(self._turn)
        ranked = sorted(replicas, key=lambda name: (self.load(name), _draw(name, first)))
        best = self._kept(ranked, beginnings)
        return [best, *(name for name in ranked if name != best)] if best else ranked

    def promised(self, replica: str) -> None:
        """It is about to be sent a request: until `settled`, that counts, too."""
        with self._lock:
            self._promised[replica] += 1

    def settled(self, replica: str) -> None:
        with self._lock:
            self._promised[replica] -= 1

    def sent(self, replica: str) -> None:
        self._add(replica, 1)

    def done(self, replica: str) -> None:
        self._add(replica, -1)

    def told(self, replica: str, load: int) -> None:
        """The replica's own word for how many requests it has. What is on its way to it is not in it."""
        with self._lock:
            if replica in self._sent:
                self._elsewhere[replica] = max(0, load - self._sent[replica])

    def _add(self, replica: str, count: int) -> None:
        with self._lock:
            if replica in self._sent:
                self._sent[replica] = max(0, self._sent[replica] + count)

    def saw(self, replica: str, beginnings: Sequence[str]) -> None:
        """The replica has taken a request that begins so."""
        for hashed in beginnings:
            others = (name for name in self._seen.pop(hashed, ()) if name != replica and name in self._sent)
            self._seen[hashed] = (replica, *others)
        while len(self._seen) > MOST_KNOWN:
            self._seen.popitem(last=False)

    def keep(self, replicas: Collection[str]) -> None:
        """There are no others any more."""
        with self._lock:
            self._sent = {name: self._sent.get(name, 0) for name in replicas}
            self._elsewhere = {name: self._elsewhere.get(name, 0) for name in replicas}

    @property
    def replicas(self) -> list[str]:
        """That there are now. From any thread."""
        return list(self._sent)

    def load(self, replica: str) -> int:
        return self._sent.get(replica, 0) + self._promised[replica] + self._elsewhere.get(replica, 0)

    def _kept(self, ranked: Sequence[str], beginnings: Sequence[str]) -> str | None:
        """The one that has most of the beginning; of several, the one with the least to do."""
        average = (sum(map(self.load, ranked)) + 1) / max(1, len(ranked))
        bound = math.ceil(UNEVEN * average)
        free = [name for name in ranked if self.load(name) < bound]
        for hashed in reversed(beginnings):
            seen = self._seen.get(hashed, ())
            if found := next((name for name in free if name in seen), None):
                return found
        return None


def _draw(replica: str, beginning: str) -> bytes:
    return blake2b(f"{replica} {beginning}".encode(), digest_size=8).digest()


def known_replicas() -> list[str]:
    """Those that this process places requests on. From any thread."""
    return sorted({name for placement in list(_all) for name in placement.replicas})
