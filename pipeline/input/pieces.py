"""Pieces of a file whose rows are found by reading it: many can be read at once, each by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

PIECE = 64 << 20
"""Bytes of a file, unpacked, that are read by one process at a time."""
MARK_EVERY = 1 << 20
"""Bytes between two marks of a piece."""
MOST_MARKS = 1024
"""Of a shard, so that the memory of plans grows with shards, not with rows."""

Mark = tuple[int, int]
"""A row's number, and the byte at which it begins."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What is known of a part of a file.

    rows: that begin in it. marks: where some of them begin, the first one among them, rows counted from
    the piece's own first. digest: a hash of them, hex. columns: that a header names.
    """

    rows: int
    marks: tuple[Mark, ...]
    digest: str
    columns: tuple[str, ...] = ()


def cuts(size: int) -> Iterator[tuple[int, int]]:
    """The pieces of a file of `size` bytes: first byte, and the byte after the last one."""
    for start in range(0, max(size, 1), PIECE):
        yield start, min(start + PIECE, size)


def piece_end(byte: int) -> int:
    """The byte after the last one of the piece that holds a byte."""
    return byte - byte % PIECE + PIECE


def joined(pieces: Sequence[Piece]) -> Piece:
    """The whole of the pieces that have rows, in order. A single piece is itself the whole."""
    if not pieces:
        return Piece(0, (), hashlib.blake2b(digest_size=16).hexdigest())
    if len(pieces) == 1:
        return _thinned(pieces[0])
    before = [0, *accumulate(piece.rows for piece in pieces)]
    moved = (
        (first + row, byte) for first, piece in zip(before, pieces, strict=False) for row, byte in piece.marks
    )
    digest = hashlib.blake2b("".join(piece.digest for piece in pieces).encode(), digest_size=16)
    return _thinned(Piece(before[-1], tuple(moved), digest.hexdigest()))


def _thinned(piece: Piece) -> Piece:
    step = -(-len(piece.marks) // MOST_MARKS) or 1
    return replace(piece, marks=piece.marks[::step])
