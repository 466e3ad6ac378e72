"""The plans of all shards: from footers by many threads, from passes over texts by many processes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace

from pipeline.input.pieces import PIECE, Piece
from pipeline.input.shards import Shard, ShardPlan, cuts_of, plan_of, plan_shard, scan
from pipeline.job.actors.ray_cluster import RayCluster
from pipeline.job.actors.ray_tasks import Chores

Tell = Callable[[str], None]
"""Called with a line that a person should read."""

FOOTERS_AT_ONCE = 32
"""Requests for footers that are under way at a time: they wait for storage rather than compute."""
SCANNED_HERE = PIECE
"""The most bytes of texts that the driver scans by itself, before Ray is started."""
TOLD_AFTER = 1.0
TOLD_EVERY = 5.0
_TASK_CUTS = 256
_GB = 1e9

Cut = tuple[Shard, int, int]
"""A part of a shard: first byte, and the byte after the last one."""


def plan_all(
    shards: Sequence[Shard], cluster: RayCluster, known: Mapping[Shard, ShardPlan], tell: Tell
) -> list[ShardPlan]:
    """The plans of all shards, in the order of their names.

    known: plans that an earlier run has made. tell: hears of it where it takes more than a second.
    Raises InputError naming a shard that can't be read.
    """
    new = [shard for shard in shards if shard not in known]
    plans = {shard: known[shard] for shard in shards if shard in known}
    for plan in (*_read(new, tell), *_scanned([shard for shard in new if shard.is_text], cluster, tell)):
        plans[plan.shard] = plan
    return _alike([plans[shard] for shard in sorted(shards, key=lambda shard: shard.name)])


def _read(shards: Iterable[Shard], tell: Tell) -> Iterator[ShardPlan]:
    """The plans of those that have a footer."""
    shards = [shard for shard in shards if not shard.is_text]
    said = _Said(tell, lambda done: f"planning: {done:,} of {len(shards):,} shards")
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:
        for done, plan in enumerate(threads.map(plan_shard, shards), 1):
            said.at(done)
            yield plan


def _scanned(shards: Sequence[Shard], cluster: RayCluster, tell: Tell) -> Iterator[ShardPlan]:
    """The plans of those whose rows are found by reading them."""
    size = sum(shard.size for shard in shards)
    said = _Said(tell, lambda done: f"planning: {done / _GB:,.1f} of {size / _GB:,.1f} GB read")
    found: defaultdict[Shard, dict[int, list[Piece]]] = defaultdict(dict)
    done = 0
    for (shard, start, stop), pieces in (
        _by_threads(shards) if size <= SCANNED_HERE else _by_tasks(shards, cluster)
    ):
        found[shard][start] = pieces
        done += stop - start
        said.at(done)
    for shard in shards:
        yield plan_of(shard, [piece for _, pieces in sorted(found[shard].items()) for piece in pieces])


def _by_threads(shards: Sequence[Shard]) -> Iterator[tuple[Cut, list[Piece]]]:
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:
        running = [threads.submit(scan_cuts, [cut]) for shard in shards for cut in _cuts(shard)]
        for scanned in as_completed(running):
            yield from scanned.result()


def _by_tasks(shards: Sequence[Shard], cluster: RayCluster) -> Iterator[tuple[Cut, list[Piece]]]:
    lookout = cluster.join()
    chores: Chores[list[Cut], list[tuple[Cut, list[Piece]]]]
    chores = Chores(scan_cuts, batch=1, at_once=max(4, cluster.cpus), spread=True)
    for task in _tasks(shards):
        chores.put(task)
    while not chores.idle:
        cluster.stop.check()
        lookout.news()
        for scanned in chores.done(timeout=0.2):
            yield from scanned


def scan_cuts(cuts: Iterable[Cut]) -> list[tuple[Cut, list[Piece]]]:
    """What is found of parts of shards, in any process. Raises InputError naming a shard."""
    return [(cut, scan(*cut)) for cut in cuts]


def _tasks(shards: Iterable[Shard]) -> Iterator[list[Cut]]:
    """Parts of shards, in groups of about a piece's bytes."""
    task, size = list[Cut](), 0
    for shard in shards:
        for cut in _cuts(shard):
            task, size = [*task, cut], size + cut[2] - cut[1]
            if size >= PIECE or len(task) == _TASK_CUTS:
                yield task
                task, size = [], 0
    if task:
        yield task


def _cuts(shard: Shard) -> Iterator[Cut]:
    return ((shard, *cut) for cut in cuts_of(shard))


def _alike(plans: Sequence[ShardPlan]) -> list[ShardPlan]:
    """The same plans, where equal lists of columns are one: most shards have the same, and some have many."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    return [replace(plan, columns=known.setdefault(plan.columns, plan.columns)) for plan in plans]


class _Said:
    """Says how far something is that takes long: after a second, then every few."""

    def __init__(self, tell: Tell, line: Callable[[int], str]) -> None:
        self._tell, self._line = tell, line
        self._next = time.monotonic() + TOLD_AFTER

    def at(self, done: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + TOLD_EVERY
            self._tell(self._line(done))
