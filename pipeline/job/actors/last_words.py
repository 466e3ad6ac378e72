"""What a process dies of, which Ray doesn't know: its signal, and where in the code it came."""

from __future__ import annotations

import faulthandler
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
}
_FATAL = re.compile(r"Fatal Python error: (.+)")
_FRAME = re.compile(r'File "(.+)", line (\d+) in (\S+)')
_ASKING = 4.0
_kept: list[IO[str]] = []


def keep_last_words() -> None:
    """From now on, a deadly signal is noted in a file for `last_words`, which outlives this process."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if not Path("/proc", file.name).exists():
            file.unlink(missing_ok=True)
    words = (folder / str(os.getpid())).open("w")
    # The handler writes to the file as long as it is open.
    _kept.append(words)
    faulthandler.enable(words, all_threads=True)


def last_words(pid: int) -> str:
    """What a dead process has noted: "SIGSEGV (Segmentation fault) in llama.py, line 7, decode".

    "" if it has noted nothing: it was killed, or ended by itself."""
    file = _folder() / str(pid)
    text = ""
    with suppress(OSError):
        text = file.read_text(errors="replace")
        file.unlink()
    fatal = _FATAL.search(text)
    if not fatal:
        return ""
    name = fatal[1].strip()
    frame = _FRAME.search(text, text.find("Current thread"))
    place = f" in {Path(frame[1]).name}, line {frame[2]}, {frame[3]}" if frame else ""
    return f"{SIGNALS.get(name, 'a fatal error')} ({name}){place}"


def last_words_on(machine: str, pid: int) -> str:
    """The same of a process on any machine; "" if it can't be found out soon."""
    if machine == ray.get_runtime_context().get_node_id():
        return last_words(pid)
    there = NodeAffinitySchedulingStrategy(machine, soft=False)
    try:
        ask = ray.remote(last_words).options(num_cpus=0, scheduling_strategy=there, max_retries=0)
        words: str = ray.get(ask.remote(pid), timeout=_ASKING)
        return words
    except (RayError, ValueError):
        return ""


def _folder() -> Path:
    return Path(tempfile.gettempdir(), f"nightherd-{os.getuid()}", "last-words")
