"""A small GGUF with one layer of each kind that a large one has: it is quick to load and to decode with."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.model.gguf import Entry, Header, Tensor, read_header

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


def write_excerpt(source: Path, target: Path) -> bool:
    """Writes the model with one layer of each kind; False, and no file, where it has no more than that.

    Layers are of one kind where their tensors have the same names, shapes and types. Some architectures
    can't be cut like that: llama.cpp refuses to load their excerpt. Raises ModelError, OSError.
    """
    header = read_header(source)
    layers = one_of_each(header.tensors)
    numbers = {number for number, _ in filter(None, (_layer(tensor) for tensor in header.tensors))}
    if len(layers) == len(numbers):
        return False
    new = {old: number for number, old in enumerate(layers)}
    tensors = list(_kept(header.tensors, new))
    entries = [_entry(entry, header, new, len(numbers)) for entry in header.entries]
    with source.open("rb") as data, target.open("wb") as file:
        file.write(_head(header, entries, [renamed for _, renamed in tensors]))
        for tensor, _ in tensors:
            file.write(b"\0" * (-file.tell() % header.alignment))
            data.seek(header.start + tensor.offset)
            file.write(data.read(tensor.size))
    return True


def one_of_each(tensors: list[Tensor]) -> list[int]:
    """The numbers of the first layers of each kind, in ascending order."""
    kinds: dict[int, set[tuple[str, tuple[int, ...], int]]] = {}
    for tensor in tensors:
        if layer := _layer(tensor):
            kinds.setdefault(layer[0], set()).add((layer[1], tensor.shape, tensor.type))
    first: dict[frozenset[tuple[str, tuple[int, ...], int]], int] = {}
    for number in sorted(kinds):
        first.setdefault(frozenset(kinds[number]), number)
    return sorted(first.values())


def _layer(tensor: Tensor) -> tuple[int, str] | None:
    match = _LAYER.fullmatch(tensor.name)
    return (int(match[1]), match[2]) if match else None


def _kept(tensors: list[Tensor], new: Mapping[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of the excerpt as they are, and with their new names. new: layers' numbers by old ones."""
    for tensor in tensors:
        layer = _layer(tensor)
        if layer is None:
            yield tensor, tensor
        elif layer[0] in new:
            yield tensor, replace(tensor, name=f"blk.{new[layer[0]]}.{layer[1]}")


def _entry(entry: Entry, header: Header, new: Mapping[int, int], layers: int) -> bytes:
    """The entry's bytes; where it is about each layer, or about how many there are, about those that stay."""
    name = entry.key.removeprefix(f"{header.value('general.architecture')}.")
    if name == "block_count":
        return _number(entry, len(new))
    if name == "leading_dense_block_count":
        return _number(entry, sum(old < int(entry.value or 0) for old in new))
    if entry.item and entry.count == layers and name != entry.key:
        data = len(entry.raw) - entry.item * layers
        items = [entry.raw[data + old * entry.item : data + (old + 1) * entry.item] for old in new]
        return entry.raw[: data - 8] + struct.pack("<Q", len(new)) + b"".join(items)
    return entry.raw


def _number(entry: Entry, value: int) -> bytes:
    width = len(entry.raw) - 8 - len(entry.key.encode()) - 4
    return entry.raw[:-width] + value.to_bytes(width, "little")


def _head(header: Header, entries: list[bytes], tensors: list[Tensor]) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", header.version, len(tensors), len(entries)) + b"".join(entries)
    offset = 0
    for tensor in tensors:
        name = tensor.name.encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type, offset)
        offset += tensor.size + -tensor.size % header.alignment
    return head
