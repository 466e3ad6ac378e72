"""The installed library of llama.cpp, found without loading it: loading the wrong one can end the process."""

from __future__ import annotations

import os
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ABSENT = "absent"


def library_folder() -> Path | None:
    """Where the shared libraries lie that llama_cpp loads; None where it isn't installed."""
    if folder := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return Path(folder)
    spec = find_spec("llama_cpp")
    return Path(spec.origin).parent / "lib" if spec and spec.origin else None


def library_id() -> str:
    """Differs for each build: from the version, and the sizes and times of the library's files."""
    folder = library_folder()
    files = sorted(folder.glob("*")) if folder and folder.is_dir() else []
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return blake2b(f"{library_version()} {stats}".encode(), digest_size=8).hexdigest()


def library_version() -> str:
    """The version of llama-cpp-python, ABSENT where it isn't installed."""
    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:
        return ABSENT
