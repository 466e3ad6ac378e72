"""The README's compiler flags keep AMX's tile configuration whole, whichever GCC compiles llama.cpp.

ggml-org/llama.cpp#20824, GCC bug 114098: GCC 11, 12 and 13.2 drop 56 of its 64 bytes. No AMX is needed to see
it: the instruction that reads the configuration is replaced by a call of a function that does.
"""

from __future__ import annotations

import platform
import re
import struct
import subprocess
from pathlib import Path

import pytest

from pipeline.native.cure import CXXFLAGS, reinstall

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("tile_configuration.cpp")
COLSB = (64, 64, 32)
ROWS = (8, 8, 16)
WHOLE = struct.pack("<BB14x16H16B", 1, 0, *COLSB, *[0] * 13, *ROWS, *[0] * 13)


def what_the_cpu_would_read(folder: Path, flags: str) -> bytes:
    """The 64 bytes that `ldtilecfg` reads in a program compiled with `flags`, as llama.cpp is."""
    assembly, program = folder / "tile.s", folder / "tile"
    compile_ = ["c++", "-O3", "-mavx2", "-mamx-tile", "-mamx-int8", "-mno-red-zone", *flags.split()]
    subprocess.run([*compile_, "-S", str(SOURCE), "-o", str(assembly)], check=True)
    call = r"leaq\t\1, %rdi\n\tcall\tload_tile_configuration"
    text, replaced = re.subn(r"ldtilecfg\t(\S+)", call, assembly.read_text())
    assert replaced == 1
    assembly.write_text(text)
    subprocess.run(["c++", str(assembly), "-no-pie", "-o", str(program)], check=True)
    done = subprocess.run([str(program)], check=True, capture_output=True, text=True)
    return bytes(map(int, done.stdout.split()))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 CPUs have AMX")
def test_the_flags_keep_the_whole_configuration(tmp_path: Path) -> None:
    assert what_the_cpu_would_read(tmp_path, CXXFLAGS) == WHOLE


@pytest.mark.parametrize("file", ["README.md", "cluster.yaml", ".ci/run", "docs/machines.md"])
def test_every_installation_sets_the_flags_and_takes_no_wheel_of_another_build(file: str) -> None:
    text = (ROOT / file).read_text()
    assert f"CXXFLAGS={CXXFLAGS}" in text
    assert "--no-cache-dir" in text


def test_so_does_the_command_that_mends_an_installation() -> None:
    assert reinstall().startswith(f"CXXFLAGS={CXXFLAGS} pip install ")
    assert "--no-cache-dir" in reinstall()
