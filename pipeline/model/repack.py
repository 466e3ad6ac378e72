"""A copy of the model in the type that llama.cpp's CPU kernels are fast for, made once per node."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.errors import ModelError
from pipeline.model.fast_types import TYPES
from pipeline.model.gguf import Tensor, read_tensors
from pipeline.model.models import LocalModel, default_cache
from pipeline.model.remote_model import publish

WORTHWHILE = 0.05
"""The share of the weights' bytes in slow types from which on a copy is made."""

Requantise = Callable[[Path, Path, dict[str, int]], dict[str, Any]]
"""Writes a source to a target as Q8_0 but for the tensors that stay in the type given, checks that it
can be loaded, and says what it changes. Raises ModelError."""


@dataclass(frozen=True, slots=True)
class Repacked:
    """path: what CPU slots load. copied: False, where that is the original.

    changes: what the copy says differently, None where nothing was copied.
    note: what people should know of it, "" where there is nothing new.
    """

    path: Path
    copied: bool = False
    changes: dict[str, Any] | None = None
    note: str = field(default="", compare=False)

    @property
    def record(self) -> dict[str, Any]:
        """JSON values for the job's record."""
        return {"copied": self.copied, **(self.changes or {})}


@dataclass(frozen=True, slots=True)
class Plan:
    """kept: tensors that stay as they are, and their types. slow: the share of bytes that don't.

    size: bytes of the copy, at most a little more. changed: the types of the tensors that don't stay.
    """

    kept: dict[str, int]
    slow: float
    size: int
    changed: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as "Q4_1+Q5_1": what the copy has as Q8_0. Nodes with other kernels may change other types."""
        return "+".join(TYPES.get(kind, str(kind)) for kind in self.changed)


def repacked(
    model: LocalModel, requantise: Requantise, fast: Collection[int], cache: Path | None = None
) -> Repacked:
    """`model` for CPU slots: the copy that any process of this node made, or its original where that is fast.

    fast: the ggml types that stay (`fast_types`). Nodes with the same ones make the same copy.
    Any number of processes may call it at once. Raises ModelError, which says what to do.
    """
    if model.parts > 1:
        raise ModelError(
            f"model.cpu_repack: {model.path} is one of {model.parts} parts of a split GGUF, which can't be "
            "repacked: join them with llama-gguf-split --merge, or leave model.cpu_repack off"
        )
    plan = plan_of(read_tensors(model.path), fast)
    if plan.slow < WORTHWHILE:
        left = f"{model.path} is left as it is: {1 - plan.slow:.0%} of its weights are fast on the CPU"
        return Repacked(model.path, note=left)
    folder = (cache or default_cache()) / "repacked"
    target = folder / f"{model.sha256}-{plan.name}-llama-{version('llama-cpp-python')}.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if known := _known(target):
                return Repacked(target, True, known["changes"])
            made = _make(model, target, plan, requantise)
    except OSError as error:
        raise ModelError(
            f"model.cpu_repack: {model.path} can't be repacked in {folder}: {error}; NIGHTHERD_CACHE names "
            "another folder"
        ) from error
    return Repacked(target, True, made["changes"], f"{model.path} is repacked as Q8_0 in {target}")


def plan_of(tensors: list[Tensor], fast: Collection[int]) -> Plan:
    """What a copy would change. Tables of which only rows are looked up stay as they are, and so do experts:
    on x86, Q8_0 has no kernel for them."""
    tied = not any(tensor.name == "output.weight" for tensor in tensors)
    tables = {"per_layer_token_embd.weight"} | (set() if tied else {"token_embd.weight"})
    weights = [t for t in tensors if len(t.shape) > 1 and t.name not in tables]
    slow = [t for t in weights if t.type not in fast and len(t.shape) == 2]
    changed = {t.name for t in slow}
    kept = {t.name: t.type for t in tensors if len(t.shape) > 1 and t.name not in changed}
    before = sum(t.size for t in slow)
    after = sum(t.elements for t in slow) * 34 // 32  # a block of 32 weights has 34 bytes
    return Plan(
        kept,
        before / max(1, sum(t.size for t in weights)),
        sum(t.size for t in tensors) - before + after,
        tuple(sorted({t.type for t in slow})),
    )


def _known(target: Path) -> dict[str, Any] | None:
    """The record of an earlier copy; None where there is none, or where the file isn't what it says."""
    try:
        record = json.loads(_record_of(target).read_text())
        return record if record["size"] == target.stat().st_size and "changes" in record else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _make(model: LocalModel, target: Path, plan: Plan, requantise: Requantise) -> dict[str, Any]:
    part, record = target.with_suffix(".part"), _record_of(target)
    record.unlink(missing_ok=True)
    part.unlink(missing_ok=True)  # of a process that was killed: its room counts
    _check_space(model, target.parent, plan.size)
    try:
        changes = requantise(model.path, part, plan.kept)
        size = part.stat().st_size
        publish(part, target)
    finally:
        part.unlink(missing_ok=True)
    made = {"source": str(model.path), "size": size, "changes": changes}
    record.write_text(json.dumps(made, indent=1))
    return made


def _check_space(model: LocalModel, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + (size >> 6):
        raise ModelError(
            f"model.cpu_repack: a copy of {model.path} as Q8_0 takes {size >> 20:,} MiB, but {folder} has "
            f"{free >> 20:,} MiB left: make room, or let NIGHTHERD_CACHE name another folder"
        )


def _record_of(target: Path) -> Path:
    return target.with_suffix(".json")
