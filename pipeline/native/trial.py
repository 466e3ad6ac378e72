"""What is asked of llama.cpp in a trial, and what it showed. `trial_process.py` makes the trial."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config import EngineConfig
from pipeline.native.kernels import Kernels


@dataclass(frozen=True, slots=True)
class Trial:
    """A model to load and decode with, in the way that a worker would.

    gpu_layers: layers on the GPU, -1 for all.
    extra_buffers: whether llama.cpp may store weights in the layouts of its fastest CPU kernels.
    """

    path: Path
    engine: EngineConfig
    threads: int
    on_gpu: bool = False
    gpu_layers: int = 0
    extra_buffers: bool = True

    def to_json(self) -> str:
        plain = {"path": str(self.path), "engine": self.engine.model_dump(mode="json")}
        rest = ("threads", "on_gpu", "gpu_layers", "extra_buffers")
        return json.dumps(plain | {name: getattr(self, name) for name in rest})

    @classmethod
    def from_json(cls, text: str) -> Trial:
        plain = json.loads(text)
        given = {"path": Path(plain["path"]), "engine": EngineConfig.model_validate(plain["engine"])}
        return cls(**plain | given)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a trial showed.

    layers: how many of the model's layers are on GPUs, and how many there are.
    agreement: cosine of a text's result computed alone and in a batch; 1 for the same numbers.
    prompt_speed: prompt tokens per second, several texts in a call.
    decode_speed: generated tokens per second, several rows in a call; 0 for embedding models.
    speedup: how many times faster a prompt is with all threads than with one.
    seconds: of the whole trial, the load included.
    weights: how many numbers the model has.
    """

    kernels: Kernels
    layers: tuple[int, int]
    agreement: float
    prompt_speed: float
    decode_speed: float
    speedup: float
    seconds: float
    weights: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"kernels": self.kernels.record})

    @classmethod
    def from_json(cls, text: str) -> Findings:
        plain = json.loads(text)
        layers = (int(plain["layers"][0]), int(plain["layers"][1]))
        return cls(**plain | {"kernels": Kernels.from_record(plain["kernels"]), "layers": layers})
