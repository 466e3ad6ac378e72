"""What a GGUF's header says of its tensors, read without loading the model."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

_STRING, _ARRAY = 8, 9
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes, by GGUF's value type
_ALIGNMENT = "general.alignment"


@dataclass(frozen=True, slots=True)
class Tensor:
    """shape: in ggml's order, the length of a row first.
    type: a ggml_type.
    size: bytes, padding included.
    offset: of its data, in bytes from where all data begins.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    size: int
    offset: int = field(default=0, compare=False)

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of the metadata. value: a number or a text; None for a list.

    raw: the key, the type and the value as the file holds them. item: for a list, the bytes of one number,
    0 for texts. count: for a list, its length.
    """

    key: str
    value: int | str | None
    raw: bytes
    item: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF says before its data. start: where the data begins, in bytes from the file's beginning."""

    version: int
    alignment: int
    entries: list[Entry]
    tensors: list[Tensor]
    start: int

    def value(self, key: str) -> int | str | None:
        """The value of a key; None where it is absent, or a list."""
        return next((entry.value for entry in self.entries if entry.key == key), None)


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of a GGUF, in the file's order; as `read_header`."""
    return read_header(path).tensors


def read_header(path: Path) -> Header:
    """The header of a little-endian GGUF of version 2 or 3. Raises ModelError."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).header()
    except (struct.error, KeyError, ValueError) as error:
        raise ModelError(f"{path}: its GGUF header can't be read ({error}): is the file whole?") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> Header:
        magic, version, tensors, values = self._take("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"magic {magic!r}, version {version}")
        entries = [self._entry() for _ in range(values)]
        alignment = next((int(e.value or 0) for e in entries if e.key == _ALIGNMENT), 32)
        found = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // alignment) * alignment
        # Data lies without gaps, in the order of the offsets.
        starts = sorted(offset for *_, offset in found)
        ends = dict(zip(starts, [*starts[1:], len(self._data) - start], strict=True))
        sized = [Tensor(name, shape, kind, ends[at] - at, at) for name, shape, kind, at in found]
        return Header(version, alignment, entries, sized, start)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, (dimensions,) = self._string(), self._take("<I")
        shape = self._take(f"<{dimensions}Q")
        kind, offset = self._take("<IQ")
        return name, shape, kind, offset

    def _entry(self) -> Entry:
        began = self._at
        key, (kind,) = self._string(), self._take("<I")
        value: int | str | None = None
        item = count = 0
        if kind == _ARRAY:
            item, count = self._skip_list()
        elif kind == _STRING:
            value = self._string()
        else:
            value = int.from_bytes(self._bytes(_WIDTHS[kind]), "little")
        return Entry(key, value, self._data[began : self._at], item, count)

    def _skip_list(self) -> tuple[int, int]:
        """The bytes of one number, 0 for texts, and how many there are."""
        kind, count = self._take("<IQ")
        if kind != _STRING:
            self._at += count * _WIDTHS[kind]
            return _WIDTHS[kind], count
        for _ in range(count):
            self._string()
        return 0, count

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
