"""What makes a machine slower than its kernels should be: found in a trial, said in a line each."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.native.cpu import this_cpu, unused
from pipeline.native.cure import reinstall, with_cuda
from pipeline.native.trial import Findings, Trial

FLOOR = {"AMX_INT8": 30.0, "AVX512": 8.0, "AVX2": 6.0, "NEON": 4.0}
"""GFLOP/s that a thread should at least give for prompts with the CPU's best instruction set: about a
fifth of what was measured (AMX 200, AVX-512 42, AVX2 30). The first that the CPU has counts."""
GPU_FLOOR = 500.0
"""The same for a GPU: what two dozen CPU threads give."""
SMALL = 30_000_000
"""Weights below which a model's speed says little of the machine's."""
SPEEDUP = 1.2
"""The least gain of several threads over one. Threads that sleep, or that have no CPU, gain nothing."""


def slow_paths(trial: Trial, findings: Findings) -> Iterator[str]:
    """A line for each thing that makes it slow, with the command that mends it where there is one."""
    on_gpu, layers = findings.layers
    if trial.on_gpu and trial.gpu_layers < 0 and on_gpu < layers:
        yield f"only {on_gpu} of {layers} layers are on the GPU; the rest runs on the CPU, and slowly"
    if trial.on_gpu and trial.gpu_layers and not findings.kernels.devices:
        yield f"a GPU was given, but the model runs on the CPU. To mend it: {with_cuda()}"
    if lacking := unused(this_cpu(), frozenset(findings.kernels.cpu)):
        yield (
            f"llama.cpp was compiled without {', '.join(lacking)}, which this CPU has, and is slower for it. "
            f"To mend it: {reinstall()}"
        )
    if pace := _pace(trial, findings):
        yield pace
    if _sleepy(trial, findings):
        yield (
            f"{trial.threads} threads are only {findings.speedup:.2f} times as fast as one: the CPUs are "
            "busy with something else, or fewer than they seem (engine.threads sets how many are used)"
        )


def seems_busy(trial: Trial, findings: Findings) -> bool:
    """Whether the machine was measured while something else used it: that passes."""
    return _sleepy(trial, findings) or bool(_pace(trial, findings))


def _pace(trial: Trial, findings: Findings) -> str:
    """What there is to say where the machine is far slower than its kernels should be; else ""."""
    given = 2 * findings.weights * findings.prompt_speed / 1e9
    on_gpu = bool(findings.kernels.devices)
    per_thread = next((FLOOR[name] for name in FLOOR if name in findings.kernels.cpu), 0.0)
    floor = GPU_FLOOR if on_gpu else per_thread * trial.threads
    if findings.weights < SMALL or given >= floor:
        return ""
    where = findings.kernels.devices[0] if on_gpu else f"{trial.threads} threads of {this_cpu().name}"
    return (
        f"prompts run at {given:,.0f} GFLOP/s on {where}, where {floor:,.0f} or more are usual: something "
        "else uses the machine, it is throttled, or the build is a slow one (nightherd doctor tells)"
    )


def _sleepy(trial: Trial, findings: Findings) -> bool:
    return trial.threads > 1 and not trial.on_gpu and findings.speedup < SPEEDUP
