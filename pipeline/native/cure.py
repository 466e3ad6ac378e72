"""The commands that mend an installation of llama.cpp."""

from __future__ import annotations

from pipeline.native.library import ABSENT, library_version

CXXFLAGS = "-fno-dse"
"""Without it GCC 11, 12 and 13.2 drop most of AMX's tile configuration (GCC bug 114098): llama.cpp dies."""


def reinstall(cmake: str = "") -> str:
    """The command that compiles llama.cpp anew for this machine. cmake: further settings of its build."""
    settings = f' CMAKE_ARGS="{cmake}"' if cmake else ""
    version = library_version()
    package = "llama-cpp-python" + (f"=={version}" if version != ABSENT else "")
    # Without --no-cache-dir, pip would take a wheel that it built with other flags.
    return (
        f"CXXFLAGS={CXXFLAGS}{settings} pip install --force-reinstall --no-deps --no-cache-dir "
        f"--no-binary llama-cpp-python {package}"
    )


def with_cuda() -> str:
    """The command that compiles llama.cpp for NVIDIA GPUs."""
    return reinstall("-DGGML_CUDA=on")
