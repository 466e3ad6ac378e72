"""What a benchmark ran on: the CPU, each llama.cpp's kernels and how it was built, and who else was busy."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import psutil

from pipeline.engine.llama.kernels import cpu_features, parse_system_info
from pipeline.native.cpu import this_cpu

# The share of the CPUs above which others' work is in the way.
QUIET = 0.05
_SECONDS = 2.0


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """JSON values; `kernels` are the CPU's instructions that each llama.cpp was compiled for."""
    peer = _native(options.llama_server) if options.llama_server else _package(options.peer_python)
    return {
        "processor": this_cpu().name,
        "cpus": os.cpu_count(),
        "threads": options.threads,
        "slots": options.slots,
        "python": platform.python_version(),
        "nightherd": version("nightherd"),
        "llama-cpp-python": version("llama-cpp-python"),
        "kernels": " ".join(sorted(cpu_features())),
        "flags": options.flags or _flags() or "not stated (--flags)",
        **peer,
    }


def busy() -> str | None:
    """What to say of a machine on which others are at work, None for an idle one."""
    used = psutil.cpu_percent(_SECONDS) / 100
    if used <= QUIET:
        return None
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return f"other processes keep {used:.0%} of the CPUs busy (load {load}): the figures are too low"


def _flags() -> str:
    """The variables that pip hands on to llama.cpp's compiler, where they are still set."""
    names = ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS")
    return " ".join(f'{name}="{os.environ[name]}"' for name in names if os.environ.get(name))


def _kernels(system_info: str) -> str:
    """The CPU's instruction sets that llama.cpp's line names."""
    return " ".join(sorted(parse_system_info(f"{system_info.strip()} ").get("CPU", {}))) or "unknown"


def _native(binary: str) -> dict[str, str]:
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    lines = (shown.stderr + shown.stdout).splitlines()
    about = [line.strip() for line in lines if line.startswith(("version", "built with"))]
    # It prints its kernels only when it starts: an unknown model makes it start and end.
    started = subprocess.run([binary, "-m", os.devnull], capture_output=True, text=True, check=False)
    found = [line for line in (started.stderr + started.stdout).splitlines() if "system_info" in line]
    return {
        "peer": f"{binary}: {'; '.join(about)}",
        "peer kernels": _kernels(found[0]) if found else "unknown",
    }


def _package(python: str | None) -> dict[str, str]:
    script = "import xllamacpp as x; print(x.__version__); print(x.get_system_info())"
    shown = subprocess.run(
        [python or sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise SystemExit("xllamacpp is missing: pip install xllamacpp, or --peer-python, or --llama-server")
    name, _, info = shown.stdout.partition("\n")
    return {"peer": f"xllamacpp {name}, a wheel for many CPUs", "peer kernels": _kernels(info)}
