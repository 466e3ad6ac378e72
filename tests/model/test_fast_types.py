"""Which weights are slow is a matter of the CPU (issue 11)."""

from __future__ import annotations

import pytest

from pipeline.engine.llama.kernels import cpu_features
from pipeline.model.fast_types import TYPES, fast_types

XEON = {"AVX2", "AVX512", "AMX_INT8"}


def names(features: set[str], *, extra_buffers: bool = True) -> set[str]:
    return {TYPES[kind] for kind in fast_types(features, extra_buffers=extra_buffers)}


@pytest.mark.parametrize(
    ("features", "fast", "slow"),
    [
        ({"AVX2"}, "Q4_0 Q8_0 Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4", "Q4_1 Q5_0 Q5_1 F16 F32 TQ2_0"),
        (XEON, "Q4_0 Q4_1 Q8_0 Q4_K Q5_K Q6_K IQ4_XS", "Q5_0 Q5_1 F16 F32"),
        ({"NEON", "DOTPROD"}, "Q4_0 Q8_0 Q4_K Q5_K Q6_K IQ4_NL MXFP4", "Q4_1 Q5_0 Q3_K IQ4_XS F16"),
        (set(), "Q4_0 Q8_0", "Q4_1 Q4_K F16"),
    ],
)
def test_types_with_kernels_are_fast(features, fast, slow):
    found = names(features)
    assert set(fast.split()) <= found
    assert not set(slow.split()) & found


def test_layouts_of_their_own_need_buffers_of_their_own():
    assert names(XEON, extra_buffers=False) == names({"AVX2"}, extra_buffers=False)
    assert {"Q4_1", "MXFP4"} <= names(XEON) - names(XEON, extra_buffers=False)


def test_the_type_of_a_copy_is_fast_on_every_machine():
    assert all("Q8_0" in names(set(features)) for features in ([], ["AVX2"], cpu_features()))
