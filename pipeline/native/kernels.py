"""What computes a worker's numbers: the name under which answers are told apart by their rounding."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

_SHOWN = ("AMX_INT8", "AVX512_VNNI", "AVX512", "AVX2", "AVX", "SVE", "MATMUL_INT8", "DOTPROD", "NEON", "VSX")
"""Instruction sets of the CPU, the one that says most first."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The code paths of llama.cpp that a worker uses. Workers with equal kernels round alike.

    library: the version of llama-cpp-python.
    cpu: the features of llama.cpp's CPU backend, in ascending order.
    buffers: what holds the weights ("CPU", "CPU_REPACK", "AMX", "CUDA0" ...), in ascending order.
    devices: the names of the GPUs, in llama.cpp's order.
    """

    library: str
    cpu: tuple[str, ...]
    buffers: tuple[str, ...]
    devices: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """10 hex digits: equal for equal kernels on any machine."""
        return blake2b(json.dumps(asdict(self)).encode(), digest_size=5).hexdigest()

    @property
    def record(self) -> dict[str, Any]:
        """JSON values for the job's record."""
        return {**asdict(self), "name": str(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Kernels:
        """The inverse of `record`. Raises KeyError where a field is missing."""
        lists = {name: tuple(record[name]) for name in ("cpu", "buffers", "devices")}
        return cls(library=record["library"], **lists)

    def __str__(self) -> str:
        """Such as "AVX512_VNNI, weights in CPU_REPACK + CPU" or "NVIDIA L4"."""
        best = next((name for name in _SHOWN if name in self.cpu), "no vector instructions")
        return f"{', '.join(self.devices) or best}, weights in {' + '.join(self.buffers) or 'no buffer'}"


def system_fingerprint(job: str, kernels: str) -> str:
    """OpenAI's `system_fingerprint`: it changes with whatever answers may depend on beside the request.

    job: the digest of the job's fingerprint. kernels: `Kernels.id`, "" where no model is involved."""
    return f"fp_{blake2b(f'{job}{kernels}'.encode(), digest_size=5).hexdigest()}"
