"""A benchmark says what it ran on, and whether others were at work (issue 11)."""

from __future__ import annotations

import argparse
from pathlib import Path

import bench_machine
import psutil
import pytest

SERVER = """#!/bin/sh
case "$1" in
--version) echo "version: 6900 (0c1e570)"; echo "built with cc 12.2 for x86_64-linux-gnu" ;;
*) echo "system_info: n_threads = 2 / 2 | CPU : SSE3 = 1 | AMX_INT8 = 1 | REPACK = 1 | " >&2; exit 1 ;;
esac
"""


def test_a_native_server_is_named_with_its_build_and_kernels(tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text(SERVER)
    binary.chmod(0o755)
    options = argparse.Namespace(
        llama_server=str(binary), peer_python=None, threads=2, slots=16, flags="-O3 -fno-dse"
    )
    about = bench_machine.describe(options)
    assert "version: 6900 (0c1e570); built with cc 12.2" in about["peer"]
    assert about["peer kernels"] == "AMX_INT8 REPACK SSE3"
    assert about["flags"] == "-O3 -fno-dse"
    assert about["kernels"] and about["processor"]


@pytest.mark.parametrize(("used", "warns"), [(0.0, False), (4.9, False), (30.0, True), (100.0, True)])
def test_a_busy_machine_is_said_to_be_busy(monkeypatch: pytest.MonkeyPatch, used: float, warns: bool) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: used)
    warning = bench_machine.busy()
    assert (warning is not None) == warns
    if warning:
        assert f"{used:.0f}%" in warning
