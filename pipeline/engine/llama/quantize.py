"""llama.cpp's quantiser: a GGUF's weights written again in another type."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path

import llama_cpp as lib

from pipeline.engine.llama.llama import last_complaints, start_llama
from pipeline.errors import ModelError


def quantize(source: Path, target: Path, kept: Mapping[str, int], *, threads: int) -> None:
    """Writes `source` to `target` with the weights that llama.cpp allows as Q8_0.

    kept: names of tensors, and the ggml_type that each stays in. Raises ModelError where llama.cpp
    reports a failure; a full disk is not always one: load `target` before it is trusted.
    """
    start_llama()
    params = lib.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0
    params.allow_requantize = True
    params.pure = True
    overrides = _overrides(kept)  # referred to, not copied: it has to live as long as the call
    params.tt_overrides = overrides
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)):
        raise ModelError(f"llama.cpp can't write {source} as Q8_0 to {target}: {last_complaints()}")


def _overrides(kept: Mapping[str, int]) -> ctypes.Array[lib.llama_model_tensor_override]:
    """A list that ends in an empty pattern, of regular expressions that each match one name."""
    entry = lib.llama_model_tensor_override
    entries = [entry(f"^{re.escape(name)}$".encode(), kind) for name, kind in kept.items()]
    return (entry * (len(entries) + 1))(*entries, entry(None, 0))
