"""What this machine has, whatever the job."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.filesize import decimal

from pipeline.doctor.check import Check
from pipeline.errors import NightherdError
from pipeline.model.models import default_cache
from pipeline.native.cpu import this_cpu, unused
from pipeline.native.cure import reinstall, with_cuda
from pipeline.native.library import ABSENT, Library, library_folder, library_version
from pipeline.native.own_process import Died, output_of

_OLDEST_PYTHON = (3, 11)
_LITTLE_DISK = 2 << 30


def examine_machine() -> list[Check]:
    """Python, Ray, llama.cpp, CPU, GPUs, memory and disk. Nothing is loaded into this process."""
    try:
        library = Library.from_json(output_of("pipeline.native.library_process"))
        llama = _llama(library)
    except (Died, NightherdError) as death:
        library, llama = Library((), False, ()), _dead_library(str(death))
    return [_python(), _ray(), llama, _cpu(library), _gpus(library), _memory(), _disk()]


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST_PYTHON:
        return Check("Python", found, "problem", "nightherd needs Python 3.11 or newer")
    return Check("Python", found, facts={"version": platform.python_version()})


def _ray() -> Check:
    try:
        return Check("Ray", version("ray"), facts={"version": version("ray")})
    except PackageNotFoundError:
        return Check("Ray", "absent", "problem", "Ray is not installed", "pip install -e .")


def _llama(library: Library) -> Check:
    features = ", ".join(library.features)
    found = f"llama-cpp-python {library_version()}, compiled for {features}"
    folder = library_folder()
    facts = {"version": library_version(), "features": list(library.features), "folder": str(folder)}
    if lacking := unused(this_cpu(), frozenset(library.features)):
        trouble = (
            f"it was compiled without {', '.join(lacking)}, which this CPU has: it is slower than need be"
        )
        return Check("llama.cpp", found, "warning", trouble, reinstall(), facts)
    return Check("llama.cpp", found, facts=facts)


def _dead_library(death: str) -> Check:
    found = f"llama-cpp-python {library_version()}"
    trouble = "it is not installed" if library_version() == ABSENT else f"loading it {death}"
    return Check("llama.cpp", found, "problem", trouble, reinstall(), {"version": library_version()})


def _cpu(library: Library) -> Check:
    cpu = this_cpu()
    found = f"{cpu.name}, {cpu.threads} threads, {', '.join(sorted(cpu.features)) or 'features unknown'}"
    facts = {"name": cpu.name, "threads": cpu.threads, "features": sorted(cpu.features)}
    return Check("CPU", found, facts=facts)


def _gpus(library: Library) -> Check:
    drivers = _nvidia()
    facts = {
        "llama_cpp": [{"name": g.name, "free": g.free, "total": g.total} for g in library.gpus],
        "nvidia_smi": drivers,
    }
    if library.gpus:
        seen = [f"{gpu.name}, {decimal(gpu.free)} of {decimal(gpu.total)} free" for gpu in library.gpus]
        driver = f" (driver {drivers[0].rpartition(',')[2].strip()})" if drivers else ""
        return Check("GPUs", "; ".join(seen) + driver, facts=facts)
    if drivers:
        trouble = "llama.cpp sees none of them: it was compiled without CUDA"
        return Check("GPUs", "; ".join(drivers), "warning", trouble, with_cuda(), facts)
    return Check("GPUs", "none: the job runs on the CPU", facts=facts)


def _nvidia() -> list[str]:
    """The NVIDIA GPUs and their driver, a line each: "NVIDIA L4, 550.54"."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _memory() -> Check:
    pages = {line.split(":")[0]: line.split()[1] for line in _lines("/proc/meminfo") if ":" in line}
    total, free = (int(pages.get(name, 0)) << 10 for name in ("MemTotal", "MemAvailable"))
    limit = next(iter(_lines("/sys/fs/cgroup/memory.max")), "max")
    total = min(total, int(limit)) if limit.isdigit() else total
    found = f"{decimal(free)} of {decimal(total)} free" if total else "unknown"
    return Check("memory", found, facts={"free": free, "total": total})


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _disk() -> Check:
    folder = default_cache()
    facts: dict[str, object] = {"folder": str(folder)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".doctor").write_text("")
        (folder / ".doctor").unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        cure = "export NIGHTHERD_CACHE=/another/folder"
        return Check("cache", str(folder), "problem", f"it can't be written: {error}", cure, facts)
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    found = f"{folder}, {decimal(used)} used, {decimal(free)} free"
    facts |= {"used": used, "free": free}
    if free < _LITTLE_DISK:
        trouble, cure = "there is little room for models", "export NIGHTHERD_CACHE=/another/folder"
        return Check("cache", found, "warning", trouble, cure, facts)
    return Check("cache", found, facts=facts)
