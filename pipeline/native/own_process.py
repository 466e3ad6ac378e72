"""Code that loads llama.cpp, run in a process of its own: if it dies, only that process does."""

from __future__ import annotations

import signal
import subprocess
import sys

from pipeline.errors import ModelError, WorkerError

REFUSED = 3
"""Exit status of a process in which llama.cpp reported an error, and did not die."""
PATIENCE = 300.0
"""Seconds that such a process may take. A death is told at once; this is for one that hangs."""


class Died(Exception):
    """The process died, or hung, or computed wrong numbers. The message says which."""


def output_of(module: str, given: str = "") -> str:
    """The last line that the module's process writes; `given` is its standard input.

    Raises Died, ModelError where llama.cpp refuses the model, WorkerError where the process was killed.
    """
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise Died(f"hung for {PATIENCE:.0f} s") from None
    said = done.stderr.strip().splitlines()
    last_words = f" ({said[-1]})" if said else ""
    if done.returncode == 0:
        return done.stdout.splitlines()[-1]
    if done.returncode == REFUSED:
        raise ModelError(said[-1] if said else "llama.cpp refused the model and gave no reason")
    if done.returncode == -signal.SIGKILL:
        raise WorkerError("the trial of llama.cpp was killed by SIGKILL, perhaps for want of memory")
    if done.returncode < 0:
        raise Died(f"died of {signal.Signals(-done.returncode).name}{last_words}")
    raise Died(f"ended with status {done.returncode}{last_words}")
