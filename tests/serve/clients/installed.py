"""Clients from the package registries, each in a folder of its own, kept from one run to the next."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

SECONDS = 600.0
_DONE = "installed"


def python_with(folder: Path, *packages: str) -> Path:
    """An interpreter that has `packages`. Skips the test where they can't be had."""
    python = folder / "bin" / "python"
    if not _has(folder, packages):
        venv.create(folder, clear=True, with_pip=True)
        _install([str(python), "-m", "pip", "install", "--quiet"], folder, packages)
    return python


def node_with(folder: Path, *packages: str) -> str:
    """The command of Node, for which `packages` lie in `folder`. Skips the test where they can't be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("node and npm are not installed")
    if not _has(folder, packages):
        folder.mkdir(parents=True, exist_ok=True)
        _install([npm, "install", "--no-audit", "--no-fund", f"--prefix={folder}"], folder, packages)
    return node


def _has(folder: Path, packages: Sequence[str]) -> bool:
    done = folder / _DONE
    return done.exists() and done.read_text() == " ".join(packages)


def _install(command: list[str], folder: Path, packages: Sequence[str]) -> None:
    wanted = " ".join(packages)
    try:
        done = subprocess.run([*command, *packages], capture_output=True, text=True, timeout=SECONDS)
        failure = done.stderr if done.returncode else ""
    except subprocess.TimeoutExpired:
        failure = f"nothing within {SECONDS:g} seconds"
    if failure:
        pytest.skip(f"{wanted} can't be fetched: {failure.strip()[-400:]}")
    (folder / _DONE).write_text(wanted)


def run(
    command: list[str], environment: dict[str, str], seconds: float = 300.0, folder: Path | None = None
) -> str:
    """What it prints. Fails the test, with all that was said, where it ends with an error.

    folder: where it runs and may leave files; the current one by default."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, env=environment, cwd=folder
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
