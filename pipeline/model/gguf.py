"""What a GGUF's header says of its tensors, read without loading the model."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

_STRING, _ARRAY = 8, 9
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes, by GGUF's value type
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True, slots=True)
class Tensor:
    """shape: in ggml's order, the length of a row first. type: a ggml_type. size: bytes, padding included."""

    name: str
    shape: tuple[int, ...]
    type: int
    size: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of a little-endian GGUF of version 2 or 3, in the file's order. Raises ModelError."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(data).tensors()
    except (struct.error, KeyError, ValueError) as error:
        raise ModelError(f"{path}: its GGUF header can't be read ({error}): is the file whole?") from error


class _Header:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def tensors(self) -> list[Tensor]:
        magic, version, tensors, values = self._take("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"magic {magic!r}, version {version}")
        alignment = 32
        for _ in range(values):
            key, value = self._string(), self._value()
            alignment = value if key == _ALIGNMENT else alignment
        found = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // alignment) * alignment
        # Data lies without gaps, in the order of the offsets.
        starts = sorted(offset for *_, offset in found)
        ends = dict(zip(starts, [*starts[1:], len(self._data) - start], strict=True))
        return [Tensor(name, shape, kind, ends[at] - at) for name, shape, kind, at in found]

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, (dimensions,) = self._string(), self._take("<I")
        shape = self._take(f"<{dimensions}Q")
        kind, offset = self._take("<IQ")
        return name, shape, kind, offset

    def _value(self) -> Any:
        """A number's value; text and arrays are skipped."""
        (kind,) = self._take("<I")
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return int.from_bytes(self._bytes(_WIDTHS[kind]), "little")
        kind, count = self._take("<IQ")
        if kind == _STRING:
            for _ in range(count):
                self._string()
        else:
            self._at += count * _WIDTHS[kind]
        return None

    def _string(self) -> str:
        (length,) = self._take("<Q")
        return self._bytes(length).decode("utf-8", "replace")

    def _bytes(self, length: int) -> bytes:
        self._at += length
        return self._data[self._at - length : self._at]

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return values
