"""The installed library of llama.cpp, found without loading it: loading the wrong one can end the process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as llama.cpp sees it; memory in bytes."""

    name: str
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Library:
    """What llama.cpp was compiled for, and what it finds.

    features: of its CPU backend, in ascending order.
    gpu_support: whether it was compiled for GPUs, and sees one.
    """

    features: tuple[str, ...]
    gpu_support: bool
    gpus: tuple[Device, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Library:
        plain = json.loads(text)
        gpus = tuple(Device(**gpu) for gpu in plain["gpus"])
        return cls(tuple(plain["features"]), plain["gpu_support"], gpus)


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
