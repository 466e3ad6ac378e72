"""Fault 12: eight actors start on a node without the model; downloads die, or bring something else."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.faults.commits import processes
from tests.faults.downloads import want
from tests.faults.machines import kill, until
from tests.faults.model_server import ModelServer

ACTORS = 8
MODEL = b"GGUF" + os.urandom(1 << 20)
SHA = hashlib.sha256(MODEL).hexdigest()


class Node:
    """A cold cache, and processes that fill it. sizes: of the model's file, as a reader saw it."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.context = processes()
        self.results = self.context.Queue()
        self.actors: list[BaseProcess] = []
        self.sizes: set[int] = set()

    def start(self, url: str, sha256: str | None = None) -> None:
        for _ in range(ACTORS):
            actor = self.context.Process(target=want, args=(url, sha256, self.cache, self.results))
            actor.start()
            self.actors.append(actor)

    def answers(self, count: int = ACTORS) -> list[str]:
        return [self.results.get(timeout=60) for _ in range(count)]

    def downloader(self) -> BaseProcess | None:
        """The one that has the unfinished file open."""
        return next((actor for actor in self.actors if self._downloads(actor)), None)

    def _downloads(self, actor: BaseProcess) -> bool:
        try:
            files = [str(entry.readlink()) for entry in Path(f"/proc/{actor.pid}/fd").iterdir()]
        except FileNotFoundError:
            return False
        return any(file.endswith(".part") for file in files)

    @contextmanager
    def watched(self) -> Iterator[None]:
        end = threading.Event()
        thread = threading.Thread(target=self._watch, args=(end,))
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _watch(self, end: threading.Event) -> None:
        while not end.wait(0.005):
            self.sizes |= {path.stat().st_size for path in self.cache.rglob("*.gguf")}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "cache")


def test_eight_actors_download_a_model_once_and_see_it_whole(node):
    with ModelServer(MODEL) as server, node.watched():
        node.start(server.url)
        assert node.answers() == [SHA] * ACTORS
    assert server.gets == 1
    assert node.sizes == {len(MODEL)}


def test_when_the_downloader_is_killed_one_other_takes_over_and_nobody_loads_a_part(node):
    with ModelServer(MODEL) as server, node.watched():
        node.start(server.url)
        kill(until(node.downloader, 30, "a download").pid)
        assert node.answers(ACTORS - 1) == [SHA] * (ACTORS - 1)
    assert server.gets == 2
    assert node.sizes == {len(MODEL)}
    assert not list(node.cache.rglob("*.part"))


def test_a_model_with_another_hash_is_refused_by_all_and_kept_by_none(node):
    with ModelServer(MODEL, seconds=0.1) as server, node.watched():
        node.start(server.url, "0" * 64)
        assert all(f"has the SHA-256 {SHA}" in answer for answer in node.answers())
    assert server.gets <= ACTORS
    assert not node.sizes
    print(f"\na wrong hash: {server.gets} downloads for {ACTORS} actors")


@pytest.mark.slow
def test_a_model_that_always_comes_cut_short_is_refused_by_all_and_kept_by_none(node):
    began = time.monotonic()
    with ModelServer(MODEL, seconds=0.1, cut=1000) as server, node.watched():
        node.start(server.url)
        answers = node.answers()
    print(f"\ncut short: {server.gets} downloads, {time.monotonic() - began:.0f} s; {answers[0]}")
    assert all(answer.startswith("ModelError: ") for answer in answers)
    assert server.gets <= 3 * ACTORS
    assert not node.sizes
