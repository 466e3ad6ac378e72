"""From the job's engine section to numbers that fit the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Auto, EngineConfig
from pipeline.engine.blocks import BLOCK
from pipeline.engine.streams import QUAD
from pipeline.errors import ConfigError

# Logits of one step beside those of rows that generate, for prompts whose every token's are wanted.
_EXTRA_OUTPUTS = 64
_BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5}
_CONTEXT_DEFAULT = 4096


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """What a GGUF says of itself. cell_values: numbers that one token holds in the KV cache.

    query_values: numbers in a token's queries, all layers together. parameters: of the whole model.
    """

    context: int
    cell_values: int
    is_recurrent: bool
    has_window: bool
    pooling: str
    query_values: int = 0
    parameters: int = 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU's memory in bytes; `free` is what no process holds."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """An actor's engine in numbers. sequences: ids, one for each slot at least. outputs: logits of
    one step.

    cells: of each sequence where `split`, else of all together. context: tokens of one row.
    """

    slots: int
    sequences: int
    context: int
    cells: int
    batch: int
    ubatch: int
    threads: int
    flash_attention: bool | Auto
    kv_type: str
    split: bool
    outputs: int

    @property
    def all_cells(self) -> int:
        """Cells of the context, those for throw-away tokens behind a stream's own (`streams.py`) as well."""
        return (self.cells + BLOCK) * self.sequences if self.split else self.cells


def fit(
    config: EngineConfig, traits: ModelTraits, *, threads: int, on_gpu: bool, memory: int
) -> EngineSettings:
    """The settings for one actor with `threads` CPUs, whose KV cache may take `memory` bytes.

    Raises ConfigError where the job asks for what can't be had.
    """
    reproducible = _reproducible(config, traits, on_gpu)
    slots = (64 if on_gpu else 16) if config.slots == "auto" else config.slots
    context = _context(config, traits)
    cell_bytes = max(1.0, traits.cell_values * _BITS[config.kv_type] / 8)
    affordable = int(memory / cell_bytes)
    if config.slots == "auto" and reproducible:
        # Each row has a stream of its own. Where all share their cells, admission counts them instead.
        slots = max(1, min(slots, affordable // (context + BLOCK)))
        slots -= slots % QUAD if slots > QUAD else 0
    sequences = slots + (-slots % QUAD if reproducible and slots > QUAD else 0)
    batch = 2048 if config.batch == "auto" else config.batch
    ubatch = min(batch, 512 if config.ubatch == "auto" else config.ubatch)
    if reproducible:
        ubatch = max(ubatch, BLOCK, sequences)
        batch = max(batch, ubatch)
    return EngineSettings(
        slots=slots,
        sequences=sequences,
        context=context,
        cells=context if reproducible else max(context, min(sequences * context, affordable)),
        batch=batch,
        ubatch=ubatch,
        threads=threads if config.threads == "auto" else config.threads,
        flash_attention=config.flash_attention,
        kv_type=config.kv_type,
        split=reproducible,
        outputs=max(sequences, min(batch, sequences + _EXTRA_OUTPUTS)),
    )


def gpu_layers(config: EngineConfig, *, on_gpu: bool) -> int:
    """Layers of the model to put on the GPU, -1 for all. It is needed before the model is loaded."""
    return (-1 if on_gpu else 0) if config.gpu_layers == "auto" else config.gpu_layers


def gpu_cache_memory(gpus: Sequence[Gpu], share: float, weights: int) -> int:
    """Bytes of `gpus` for the KV cache of an actor that has `share` of them, its `weights` already loaded.

    A quarter of what is left is kept for llama.cpp's own buffers, of which some are taken as late as in
    a decode, where a want of memory ends the process.
    """
    free, total = sum(gpu.free for gpu in gpus), sum(gpu.total for gpu in gpus)
    # Actors that share a GPU start at once: what is free now may be another's in a moment.
    own = int(total * min(1.0, share)) - weights
    return max(0, min(free, own)) * 3 // 4


def _context(config: EngineConfig, traits: ModelTraits) -> int:
    if config.context == "auto":
        return min(traits.context, _CONTEXT_DEFAULT)
    if config.context > traits.context:
        raise ConfigError(
            f"engine.context: {config.context}, but the model was trained for at most {traits.context} tokens"
        )
    return config.context


def _reproducible(config: EngineConfig, traits: ModelTraits, on_gpu: bool) -> bool:
    reason = None
    if on_gpu:
        reason = "it holds on the CPU only"
    elif config.flash_attention is False:
        reason = "it needs engine.flash_attention"
    elif traits.is_recurrent or traits.has_window:
        reason = "it does not hold for recurrent or sliding-window models"
    if config.reproducible is True and reason:
        raise ConfigError(f"engine.reproducible: true can't be promised here: {reason}")
    return config.reproducible is not False and reason is None
