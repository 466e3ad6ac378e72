"""A thousand clients at once, most of them ill-mannered: the others are answered, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.config import ServeConfig
from pipeline.engine.sequence import Sequence
from pipeline.serve.door import Door
from pipeline.serve.exchange import Exchange
from pipeline.serve.sse import EventStream
from pipeline.serve.visit import Visit
from tests.serve.crowd import Crowd
from tests.serve.live import Live, live, until

ROUNDS = 3
CELLS = 512
MADE = (Exchange, Visit, EventStream, Sequence)
"""What the service makes of a request."""
AT_HAND = 8
"""So many of them may be left: the engine's thread still has its last step's in its variables."""
MEGABYTES = 16
"""By which the process may grow after the second round: what leaks grows with each client."""


@pytest.fixture
def roomy() -> Iterator[Live]:
    with live(Door(ServeConfig(queue=10_000)), context=CELLS, cells=CELLS) as made:
        yield made


@pytest.mark.parametrize("clients", [45, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_are_answered_who_wait_and_nothing_is_left(roomy, clients):
    before, memory = _open(roomy), []
    for seed in range(ROUNDS if clients == 1000 else 1):
        crowd = _come(roomy, clients, seed)
        each = clients // len(crowd.manners)
        assert all(crowd.answered[manner] >= each for manner in ("reads slowly", "streams", "waits"))
        until(lambda: roomy.idle and _no_more(_open(roomy), before), 30)
        assert _left() <= AT_HAND
        memory.append(psutil.Process().memory_info().rss / 1e6)
    assert memory[-1] - memory[min(1, len(memory) - 1)] < MEGABYTES, memory
    assert _all_cells(roomy) == CELLS - 2


def _come(roomy: Live, clients: int, seed: int) -> Crowd:
    async def come() -> Crowd:
        crowd = Crowd(roomy.url, seed)
        await asyncio.wait_for(crowd.come(clients), 240)
        return crowd

    return asyncio.run(come())


def _open(roomy: Live) -> tuple[int, int]:
    """Open files, and tasks of the service's event loop. Files that nobody holds any more don't count."""
    gc.collect()
    mailbox = roomy.door._mailbox
    tasks = len(asyncio.all_tasks(mailbox._loop)) if mailbox else 1
    return len(list(Path("/proc/self/fd").iterdir())), tasks


def _no_more(now: tuple[int, int], then: tuple[int, int]) -> bool:
    return all(one <= other for one, other in zip(now, then, strict=True))


def _left() -> int:
    gc.collect()
    return sum(isinstance(found, MADE) for found in gc.get_objects())


def _all_cells(roomy: Live) -> int:
    """The tokens of an answer that needs each cell of the cache, but those of its prompt: two."""
    body = {"prompt": "x", "max_tokens": CELLS - 2, "ignore_eos": True}
    request = urllib.request.Request(f"{roomy.url}/v1/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.load(answer)["usage"]["completion_tokens"])
