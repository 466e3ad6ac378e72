"""llama.cpp is tried in a process of its own, once per node, before a worker is given rows."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock

from pipeline.errors import MachineError, ModelError
from pipeline.model.gguf import read_header
from pipeline.model.gguf_excerpt import write_excerpt
from pipeline.native.cpu import this_cpu
from pipeline.native.cure import reinstall
from pipeline.native.library import library_id
from pipeline.native.own_process import Died, output_of
from pipeline.native.pace import seems_busy, slow_paths
from pipeline.native.trial import Findings, Trial

LARGE = 1 << 30
"""Bytes of a model from which on an excerpt of it is tried instead."""
AGREEMENT = 0.98
"""The least cosine between a text's logits alone and in a batch. Rounding alone leaves about 0.999."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How llama.cpp works on this machine.

    extra_buffers: whether weights may be stored in the layouts of the fastest CPU kernels.
    notes: a line for each thing that a person should know: what was given up, what is slow, what mends it.
    """

    extra_buffers: bool
    findings: Findings
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"findings": self.findings.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Proof:
        plain = json.loads(text)
        return cls(plain["extra_buffers"], Findings.from_json(plain["findings"]), tuple(plain["notes"]))


Try = Callable[[Trial], Findings]
"""Makes a trial. Raises Died; ModelError where llama.cpp refuses the model; WorkerError for other ends."""


def proven(trial: Trial, cache: Path, attempt: Try | None = None) -> Proof:
    """The proof for a worker that would use llama.cpp as `trial` says. It is made once per node.

    It is kept in `cache`, and holds for this library, this CPU, these settings, and models with weights of
    the same types and shapes.
    attempt: stands in for the trial's process. Raises MachineError, ModelError, WorkerError.
    """
    folder = cache / "proofs"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{_key(trial)}.json"
    with FileLock(f"{kept}.lock"):
        if proof := _read(kept):
            return proof
        proof = _prove_small(trial, cache, attempt or in_a_process)
        # A machine that was busy is measured anew.
        if not seems_busy(trial, proof.findings):
            kept.write_text(proof.to_json())
    return proof


def in_a_process(trial: Trial) -> Findings:
    """Makes a trial in a process of its own, as `Try`."""
    return Findings.from_json(output_of("pipeline.native.trial_process", trial.to_json()))


def _prove(trial: Trial, attempt: Try) -> Proof:
    """Tries the fastest way first, then the safer one."""
    try:
        findings = _sound(trial, attempt)
        return Proof(True, findings, tuple(slow_paths(trial, findings)))
    except Died as death:
        first = death
    try:
        findings = _sound(replace(trial, extra_buffers=False), attempt)
    except Died as death:
        raise MachineError(_hopeless(first, death)) from None
    return Proof(False, findings, (_given_up(first), *slow_paths(trial, findings)))


def _sound(trial: Trial, attempt: Try) -> Findings:
    findings = attempt(trial)
    if not findings.agreement >= AGREEMENT:  # so that NaN fails
        shown = "not a number" if math.isnan(findings.agreement) else f"{findings.agreement:.4f}"
        raise Died(
            f"computes other numbers for a text in a batch than for the same text alone (cosine {shown})"
        )
    return findings


def _given_up(death: Died) -> str:
    amx = "AMX_INT8" in this_cpu().features
    cost = "prompts run at about a quarter of the speed, generation at a third" if amx else "it is slower"
    return (
        f"llama.cpp {death} with the fastest kernels for this CPU ({this_cpu().name}). The job goes on "
        f"without them: {cost}. To mend it: {reinstall()}"
    )


def _hopeless(first: Died, second: Died) -> str:
    also = "also" if str(first) == str(second) else f"(it {second})"
    return (
        f"llama.cpp {first} on this machine, and {also} without its extra kernels. No row is to blame.\n"
        f"Compile it for this machine: {reinstall()}\nThen look: nightherd doctor"
    )


def _prove_small(trial: Trial, cache: Path, attempt: Try) -> Proof:
    """Proves on an excerpt of a large model; on the model itself where llama.cpp can't load that."""
    if trial.path.stat().st_size < LARGE:
        return _prove(trial, attempt)
    with tempfile.TemporaryDirectory(prefix="excerpt-", dir=cache) as folder:
        excerpt = Path(folder) / "excerpt.gguf"
        if write_excerpt(trial.path, excerpt):
            with suppress(ModelError):
                return _prove(replace(trial, path=excerpt), attempt)
    return _prove(trial, attempt)


def _key(trial: Trial) -> str:
    header = read_header(trial.path)
    facts = {
        "library": library_id(),
        "cpu": [this_cpu().name, sorted(this_cpu().features)],
        "architecture": header.value("general.architecture"),
        "weights": sorted({(tensor.type, tensor.shape) for tensor in header.tensors}),
        "trial": json.loads(trial.to_json()) | {"path": ""},
    }
    return blake2b(json.dumps(facts).encode(), digest_size=12).hexdigest()


def _read(kept: Path) -> Proof | None:
    try:
        return Proof.from_json(kept.read_text())
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
