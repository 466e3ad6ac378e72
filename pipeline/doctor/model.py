"""The job's model on this machine: reached, tried, and measured."""

from __future__ import annotations

from dataclasses import replace

from rich.filesize import decimal

from pipeline.config import JobConfig
from pipeline.doctor.check import Check
from pipeline.engine.settings import gpu_layers
from pipeline.errors import NightherdError
from pipeline.model.fast_types import fast_types
from pipeline.model.gguf import read_header, read_tensors
from pipeline.model.models import LocalModel, default_cache, fetch_model
from pipeline.model.repack import WORTHWHILE, plan_of
from pipeline.native.own_process import Died
from pipeline.native.proof import Proof, in_a_process, proven
from pipeline.native.trial import Findings, Trial


def examine_model(job: JobConfig, *, threads: int, gpus: float) -> list[Check]:
    """Fetches the model as a worker would, and measures it with that many CPU threads and GPUs."""
    try:
        model = fetch_model(job.model)
        header = read_header(model.path)
    except NightherdError as error:
        return [Check("model", job.model.path, "problem", str(error))]
    architecture = header.value("general.architecture")
    found = f"{model.path.name}, {architecture}, {decimal(model.size)}"
    facts = {"path": str(model.path), "sha256": model.sha256, "size": model.size}
    return [Check("model", found, facts=facts), *_tried(job, model, threads, gpus)]


def _tried(job: JobConfig, model: LocalModel, threads: int, gpus: float) -> list[Check]:
    trial = Trial(model.path, job.engine, threads, gpus > 0, gpu_layers(job.engine, on_gpu=gpus > 0))
    try:
        proof = proven(trial, default_cache())
        whole = in_a_process(replace(trial, extra_buffers=proof.extra_buffers))
    except (Died, NightherdError) as error:
        trouble, _, cure = str(error).partition("\n")
        return [Check("kernels", "none that work", "problem", trouble, cure)]
    return [_kernels(proof), *_weights(job, model, proof, gpus), *_notes(proof), _speed(whole, threads)]


def _kernels(proof: Proof) -> Check:
    kernels = proof.findings.kernels
    return Check("kernels", str(kernels), facts=kernels.record | {"extra_buffers": proof.extra_buffers})


def _weights(job: JobConfig, model: LocalModel, proof: Proof, gpus: float) -> list[Check]:
    """Whether the CPU is slow for the types of the model's weights."""
    if gpus or job.model.cpu_repack:
        return []
    fast = fast_types(proof.findings.kernels.cpu, extra_buffers=proof.extra_buffers)
    slow = plan_of(read_tensors(model.path), fast).slow
    found, facts = f"{slow:.0%} are of types that are slow on this CPU", {"slow": round(slow, 3)}
    if slow < WORTHWHILE:
        return [Check("weights", found, facts=facts)]
    trouble = "a copy as Q8_0 is about twice as fast for prompts, and may change a few answers"
    return [Check("weights", found, "warning", trouble, "--set model.cpu_repack=true", facts)]


def _notes(proof: Proof) -> list[Check]:
    split = [note.partition(" To mend it: ") for note in proof.notes]
    return [Check("speed", "slower than need be", "warning", trouble, cure) for trouble, _, cure in split]


def _speed(findings: Findings, threads: int) -> Check:
    found = f"{findings.prompt_speed:,.0f} prompt tokens/s"
    if findings.decode_speed:
        found += f", {findings.decode_speed:,.0f} generated tokens/s with 8 rows at once"
    where = f"{threads} thread{'s' if threads > 1 else ''}"
    facts = {
        "prompt_tokens_per_second": round(findings.prompt_speed, 1),
        "generated_tokens_per_second": round(findings.decode_speed, 1),
        "threads": threads,
        "speedup_of_threads": round(findings.speedup, 2),
        "layers_on_gpu": list(findings.layers),
    }
    return Check("speed", f"{found} ({', '.join(findings.kernels.devices) or where})", facts=facts)
