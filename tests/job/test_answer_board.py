"""Actors of a real Ray job share their answers, and do without when the board is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from pipeline.engine.sequence import Generation
from pipeline.job.actors.answer_board import SharedAnswers
from pipeline.respond.ask import Generations

ANSWER = Generations((Generation("yes", (1,), "stop", 3, 0),))


class Asker(SharedAnswers):
    """A worker's side of the board, in a process of its own."""

    def knows(self, key: bytes) -> bool:
        return self.look([key]) == {key: ANSWER}

    def tells(self, key: bytes) -> None:
        self.note({key: ANSWER})


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def asker(job: str) -> Any:
    return ray.remote(Asker).options(num_cpus=0).remote(job)


def until(true: Callable[[], bool]) -> bool:
    """Whether it becomes so within a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


def test_what_one_actor_tells_another_knows_and_other_jobs_do_not() -> None:
    first, second, stranger = asker("a"), asker("a"), asker("b")
    ray.get(first.tells.remote(b"k"))
    assert until(lambda: ray.get(second.knows.remote(b"k")))
    assert not ray.get(stranger.knows.remote(b"k"))


@pytest.mark.slow
def test_when_the_board_dies_with_its_actor_the_others_go_on_with_a_new_one() -> None:
    first, second = asker("c"), asker("c")
    ray.get(first.tells.remote(b"k"))
    assert until(lambda: ray.get(second.knows.remote(b"k")))
    ray.kill(first)
    assert until(lambda: not ray.get(second.knows.remote(b"k")))

    def told_again() -> bool:
        ray.get(second.tells.remote(b"k"))
        return bool(ray.get(second.knows.remote(b"k")))

    assert until(told_again)
