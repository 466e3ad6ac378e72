"""The CPU of this machine, as the operating system describes it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FLAGS = {
    "AMX_INT8": "amx_int8",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512": "avx512f",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "AVX": "avx",
    "MATMUL_INT8": "i8mm",
    "DOTPROD": "asimddp",
    "NEON": "asimd",
}
"""llama.cpp's names of instruction sets that matter for speed, and the kernel's. The strongest first."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """name: the model's. features: the instruction sets, by llama.cpp's names. threads: usable here."""

    name: str
    features: frozenset[str]
    threads: int


@cache
def this_cpu() -> Cpu:
    """Source: /proc/cpuinfo; elsewhere only the processor's name is known, and no features."""
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text())
    except OSError:
        return Cpu(platform.processor() or platform.machine(), frozenset(), os.cpu_count() or 1)


def parse_cpuinfo(text: str) -> Cpu:
    """The CPU that Linux's /proc/cpuinfo describes, on x86 or ARM."""
    pairs = [line.partition(":") for line in text.splitlines()]
    first: dict[str, str] = {}
    for key, _, value in pairs:
        first.setdefault(key.strip().lower(), value.strip())
    flags = set((first.get("flags") or first.get("features") or "").split())
    name = first.get("model name") or first.get("cpu part") or platform.machine()
    features = frozenset(feature for feature, flag in _FLAGS.items() if flag in flags)
    return Cpu(name, features, len(os.sched_getaffinity(0)))


def unused(cpu: Cpu, built_for: frozenset[str]) -> list[str]:
    """The CPU's instruction sets that a llama.cpp with the features `built_for` doesn't use."""
    return [feature for feature in _FLAGS if feature in cpu.features - built_for]
