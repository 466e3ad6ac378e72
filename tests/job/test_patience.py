"""A job says why nothing can run, waits as long as it may, and ends with how to resume (issue 9, item 5)."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ClusterLost
from pipeline.job.actors.last_words import last_words
from pipeline.job.actors.patience import Patience


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(1, 1000), st.floats(0, 1000), st.lists(st.tuples(st.floats(0.1, 50), st.booleans())))
def test_it_ends_a_job_after_its_seconds_of_trouble_on_end_and_never_before(seconds, said_after, turns):
    clock = Clock()
    patience = Patience(seconds, said_after, clock)
    began = None
    for step, trouble in turns:
        clock.now += step
        began = (clock.now if began is None else began) if trouble else None
        if began is not None and clock.now - began >= seconds:
            with pytest.raises(ClusterLost, match=r"no machine is alive.*the same command resumes the job"):
                patience.heed("no machine is alive")
            return
        said = patience.heed("no machine is alive" if trouble else "")
        if said.startswith("no machine"):
            assert began is not None and clock.now - began >= said_after


def test_a_trouble_is_said_once_and_so_is_its_end():
    clock = Clock()
    patience = Patience(100, 10, clock)
    said = []
    for now, trouble in [(0, "x"), (9, "x"), (11, "x"), (12, "x"), (13, "y"), (14, ""), (15, "")]:
        clock.now = now
        said.append(patience.heed(trouble).partition(";")[0])
    assert said == ["", "", "x", "", "y", "there is a place for workers again", ""]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE", "SIGBUS"])
def test_the_signal_that_a_process_died_of_is_known(name: str):
    code = (
        "import os, signal\nfrom pipeline.job.actors.last_words import keep_last_words\nkeep_last_words()\n"
        f"def decode(): os.kill(os.getpid(), signal.{name})\ndecode()"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait() == -signal.Signals[name]
    words = last_words(process.pid)
    assert words.startswith(name) and words.endswith("decode")
    assert not last_words(process.pid)
