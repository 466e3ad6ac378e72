"""The GPUs that llama.cpp can use in this process: those it was compiled for, as far as they are visible."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp as lib
from llama_cpp._ggml import libggml

from pipeline.engine.llama.llama import start_llama
from pipeline.engine.settings import Gpu

_GPU, _INTEGRATED = 1, 2  # ggml_backend_dev_type


def sees_gpu() -> bool:
    """Whether there is any. Unlike `visible_gpus` it takes none of a GPU's memory."""
    start_llama()
    return bool(lib.llama_supports_gpu_offload())


def visible_gpus() -> list[Gpu]:
    """All that llama.cpp spreads a model's layers over; integrated ones only where there are no others."""
    return [_memory(device) for device in _devices()]


def gpu_names() -> tuple[str, ...]:
    """What the same GPUs are called: "NVIDIA L4" ..."""
    describe = _ggml("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    return tuple(describe(device).decode("utf-8", "replace") for device in _devices())


def _devices() -> list[int]:
    """Handles of the GPUs."""
    start_llama()
    by_kind: dict[int, list[int]] = {_GPU: [], _INTEGRATED: []}
    for number in range(_ggml("ggml_backend_dev_count", ctypes.c_size_t)()):
        device = _ggml("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)(number)
        kind = _ggml("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(device)
        if kind in by_kind:
            by_kind[kind].append(device)
    return by_kind[_GPU] or by_kind[_INTEGRATED]


def _memory(device: int) -> Gpu:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    size = ctypes.POINTER(ctypes.c_size_t)
    read = _ggml("ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)
    read(device, ctypes.byref(free), ctypes.byref(total))
    return Gpu(free.value, total.value)


def _ggml(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml-backend.h, which llama-cpp-python leaves unbound."""
    function = libggml[name]  # indexing makes a new object: nobody else's types are changed
    function.restype, function.argtypes = result, arguments
    return function
