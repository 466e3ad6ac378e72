"""The kernels that a loaded model uses."""

from __future__ import annotations

from pipeline.engine.llama.devices import gpu_names
from pipeline.engine.llama.kernels import cpu_features
from pipeline.engine.llama.llama import LlamaFile
from pipeline.native.kernels import Kernels
from pipeline.native.library import library_version


def kernels_of(file: LlamaFile) -> Kernels:
    """The kernels of a model in memory: they follow from where its weights lie."""
    devices = gpu_names() if file.placement.layers[0] else ()
    return Kernels(library_version(), tuple(sorted(cpu_features())), file.placement.buffers, devices)
