"""Takes up the batches that wait, holds them while they are worked on, and lets them go."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.errors import NightherdError, StorageError
from pipeline.serve.batches import lease
from pipeline.serve.batches.batch import Batch
from pipeline.serve.batches.batch_store import BatchStore, Place
from pipeline.serve.batches.file_store import remove_expired
from pipeline.serve.batches.ids import created
from pipeline.serve.batches.lease import Lease
from pipeline.serve.batches.work import Work

AT_ONCE = 8
OF_ONE_OWNER = 2
"""Batches that are worked on together: one owner's long ones leave room for others'."""
_ENDINGS = 4
"""More threads for batches that only have to be ended: a client that cancels waits for no other batch."""
LOOK_SECONDS = 2.0
"""How often the marks of batches that are worked on are looked at."""
_AGAIN_SECONDS = 5.0
_AFTER_FAILURE = 30.0
_SWEEP_SECONDS = 60.0
_CUT_OFF = 3600.0
"""Seconds after which a batch without a request is one whose creation was cut off."""

_log = logging.getLogger("nightherd.serve")


@dataclass(slots=True)
class _Hold:
    """A batch that this process works on."""

    place: Place
    expires_at: float
    lease: Lease
    renew_at: float
    stop: threading.Event = field(default_factory=threading.Event)
    work: Future[None] = field(default_factory=Future)


class Keeper:
    """One thread that looks after all batches, and a few that work on them. Several processes may have one
    each, on the same folder."""

    def __init__(self, store: BatchStore, work: Work) -> None:
        self._store, self._work = store, work
        self._held: dict[Place, _Hold] = {}
        self._considered: dict[Place, float] = {}
        self._failed: dict[Place, float] = {}
        self._sweep_at = 0.0
        self._closed = False
        self._news = threading.Event()
        self._threads = ThreadPoolExecutor(AT_ONCE + _ENDINGS, "batch")
        self._thread = threading.Thread(target=self._serve, name="batches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something has changed: don't wait. From any thread."""
        self._considered.clear()
        self._news.set()

    def close(self) -> None:
        """Keeps what is answered, and leaves all batches to whoever comes next."""
        self._closed = True
        self._news.set()
        self._thread.join()
        for hold in self._held.values():
            hold.stop.set()
        self._threads.shutdown(wait=True)
        for hold in self._held.values():
            _release(hold)

    def _serve(self) -> None:
        while not self._closed:
            self._news.clear()
            try:
                self._look()
            except StorageError as error:
                _log.warning("batches can't be looked at: %s", error)
            except Exception:
                _log.exception("batches can't be looked at")
            self._news.wait(LOOK_SECONDS)

    def _look(self) -> None:
        for hold in list(self._held.values()):
            self._keep(hold)
        for place in self._store.open():
            if self._closed:
                return
            now = time.monotonic()
            again = max(self._considered.get(place, 0.0), self._failed.get(place, 0.0))
            if place not in self._held and again <= now:
                self._considered[place] = now + _AGAIN_SECONDS
                self._consider(place)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + _SWEEP_SECONDS
            remove_expired(self._store.data, self._store.clock())

    def _keep(self, hold: _Hold) -> None:
        """Shows that this process is alive, and tells the work when its batch ends, or is another's."""
        if hold.work.done():
            del self._held[hold.place]
            _release(hold)
            # There is room for another one.
            self._considered.clear()
            return
        now = self._store.clock()
        if time.monotonic() >= hold.renew_at:
            renewed = hold.lease.renewed(now)
            hold.lease = renewed or hold.lease
            hold.renew_at = time.monotonic() + lease.SECONDS / 3
            if not renewed and not hold.stop.is_set():
                _log.warning("batch %s was taken over by another process", hold.place.id)
                hold.stop.set()
        if now >= hold.expires_at and not self._store.ending(hold.place):
            self._store.end(hold.place, "expired")
        if self._store.ending(hold.place):
            hold.stop.set()

    def _consider(self, place: Place) -> None:
        """Takes a batch up, if it is for this process."""
        batch, now = self._store.load(place), self._store.clock()
        if batch is None:
            if now - created(place.id) > _CUT_OFF:
                self._store.drop(place)
        elif batch.finished:
            self._store.close(place)
        elif batch.outcome or now >= batch.request.expires_at:
            self._store.end(place, "expired")
            self._take(place, batch)
        elif self._work.fits(batch) and self._has_room(place):
            self._take(place, batch)

    def _has_room(self, place: Place) -> bool:
        owners = Counter(held.folder for held in self._held)
        return len(self._held) < AT_ONCE and owners[place.folder] < OF_ONE_OWNER

    def _take(self, place: Place, batch: Batch) -> None:
        taken = lease.take(self._store.data, place.lease, self._store.clock)
        if taken is None:
            return
        hold = _Hold(place, batch.request.expires_at, taken, time.monotonic() + lease.SECONDS / 3)
        self._held[place] = hold
        hold.work = self._threads.submit(self._carry, hold)
        hold.work.add_done_callback(lambda _: self._news.set())

    def _carry(self, hold: _Hold) -> None:
        try:
            self._work.carry(hold.place, hold.stop.is_set, hold.lease.deaths)
        except NightherdError as error:
            if not hold.stop.is_set():
                _log.warning("batch %s is left for a while: %s", hold.place.id, error)
            self._failed[hold.place] = time.monotonic() + _AFTER_FAILURE
        except Exception:
            _log.exception("batch %s is left for a while", hold.place.id)
            self._failed[hold.place] = time.monotonic() + _AFTER_FAILURE


def _release(hold: _Hold) -> None:
    """A finished batch has no leases any more."""
    with suppress(StorageError):
        if hold.lease.data.exists(hold.lease.name):
            hold.lease.release()
