"""Which replica gets a request: one that has computed its beginning, unless that one has too much to do."""

from __future__ import annotations

import math
from collections import OrderedDict
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

    Replicas are named by Serve's unique ids. Not safe for several threads."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._load: dict[str, int] = {}
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

    def sent(self, replica: str) -> None:
        self.told(replica, self.load(replica) + 1)

    def done(self, replica: str) -> None:
        self.told(replica, max(0, self.load(replica) - 1))

    def told(self, replica: str, load: int) -> None:
        """The replica's own word for how many requests it has."""
        if replica in self._load:
            self._load[replica] = load

    def saw(self, replica: str, beginnings: Sequence[str]) -> None:
        """The replica has taken a request that begins so."""
        for hashed in beginnings:
            others = (name for name in self._seen.pop(hashed, ()) if name != replica and name in self._load)
            self._seen[hashed] = (replica, *others)
        while len(self._seen) > MOST_KNOWN:
            self._seen.popitem(last=False)

    def keep(self, replicas: Collection[str]) -> None:
        """There are no others any more."""
        self._load = {name: self._load.get(name, 0) for name in replicas}

    @property
    def replicas(self) -> list[str]:
        """That there are now. From any thread."""
        return list(self._load)

    def load(self, replica: str) -> int:
        return self._load.get(replica, 0)

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
