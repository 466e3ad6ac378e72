"""Builds of llama.cpp that die, loaded by the real code through LLAMA_CPP_LIB_PATH."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("double.c")


def dying_library(folder: Path, *, always: bool) -> Path:
    """A folder of libraries as llama_cpp loads them, whose decode dies of SIGSEGV.

    always: False, where it dies only with the extra buffers of the fastest CPU kernels.
    """
    spec = find_spec("llama_cpp")
    assert spec and spec.origin
    package = Path(spec.origin).parent
    real = package / "lib"
    folder.mkdir()
    for library in real.iterdir():
        if library.name != "libllama.so":
            (folder / library.name).symlink_to(library)
    command = ["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", f"-DALWAYS={int(always)}", str(SOURCE)]
    command += ["-I", str(package.parent / "include"), "-o", str(folder / "libllama.so")]
    command += ["-Wl,-soname,libdouble.so", "-Wl,--no-as-needed", str(real / "libllama.so")]
    subprocess.run([*command, f"-Wl,-rpath,{real}"], check=True)
    return folder
