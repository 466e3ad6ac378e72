"""The instruction sets and devices that llama.cpp was compiled for and found in this process."""

from __future__ import annotations

import re
from functools import cache

import llama_cpp as lib

from pipeline.engine.llama.llama import start_llama

_BACKEND = re.compile(r"(\w+) : ((?:\w+ = [^|]*\| )*)")
_FEATURE = re.compile(r"(\w+) = ([^|]*?) \|")


@cache
def backend_features() -> dict[str, dict[str, str]]:
    """The features of each backend by its name: {"CPU": {"AVX2": "1", ...}, "CUDA": {"ARCHS": "890"}}.

    Source: `llama_print_system_info`. A feature is listed if llama.cpp was compiled with it.
    """
    start_llama()
    return parse_system_info(lib.llama_print_system_info().decode("utf-8", "replace"))


def cpu_features() -> frozenset[str]:
    """The CPU backend's features that are on: "AVX2", "AVX512", "AMX_INT8", "NEON", "REPACK" ..."""
    return frozenset(name for name, value in backend_features().get("CPU", {}).items() if value != "0")


def parse_system_info(text: str) -> dict[str, dict[str, str]]:
    """The backends and features in llama.cpp's line of system information."""
    return {backend: dict(_FEATURE.findall(features)) for backend, features in _BACKEND.findall(text)}
