"""Which types of weights llama.cpp's kernels are fast for on a CPU, many tokens at once."""

from __future__ import annotations

from collections.abc import Collection

TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    29: "IQ1_M",
    30: "BF16",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}
"""ggml_type by number: those that model files have for weights."""

_NUMBERS = {name: number for number, name in TYPES.items()}
_K_QUANTS = "Q2_K Q3_K Q4_K Q5_K Q6_K"
_I_QUANTS = "IQ4_XS IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S IQ1_S IQ1_M"
# A feature of the CPU, by llama.cpp's name, and the types with kernels for it; their files in ggml-cpu/.
_KERNELS = (
    ("AVX2", "Q8_0 Q4_0 IQ4_NL"),  # llamafile/sgemm.cpp
    ("AVX2", f"{_K_QUANTS} {_I_QUANTS}"),  # tiled/tiled.cpp
    ("DOTPROD", "Q8_0 Q4_0"),  # llamafile/sgemm.cpp
)
# The same for kernels that need the weights in a layout of their own.
_LAYOUTS = (
    ("AMX_INT8", "Q4_0 Q4_1 Q8_0 Q4_K Q5_K Q6_K IQ4_XS"),  # amx/amx.cpp
    ("AVX2", "MXFP4"),  # repack.cpp
    ("DOTPROD", "Q4_K Q5_K Q6_K IQ4_NL MXFP4"),  # repack.cpp
)
# What no CPU is slower for than for Q8_0, the type of a copy.
_EVERYWHERE = "Q4_0 Q8_0"


def fast_types(features: Collection[str], *, extra_buffers: bool = True) -> frozenset[int]:
    """The ggml types that are about as fast as Q8_0, many tokens at once, on a CPU with these features.

    extra_buffers: whether weights may be stored in layouts of the kernels' own.
    Source: llama.cpp 0c1e57098; on AVX2 measured. Q5_0 has a kernel on AVX2 too, and 0.7 of Q8_0's speed.
    Floats have kernels everywhere; they take twice the memory, and with AMX twice the time.
    """
    names = set(_EVERYWHERE.split())
    for feature, types in (*_KERNELS, *(_LAYOUTS if extra_buffers else ())):
        if feature in features:
            names.update(types.split())
    return frozenset(_NUMBERS[name] for name in names)
