"""Calls in which each row, in a stream of its own, meets the same arithmetic whatever runs beside it.

So llama.cpp's CPU backend computes a call (its `split_equal`, `ggml_compute_forward_flash_attn_ext` and
`ggml_compute_forward_mul_mat`, and the repacked types):

- in parts, each a run of consecutive sequence ids with equally many tokens;
- attention in tiles from 64 tokens of a stream on, else token by token, in two ways that round differently;
- matrices by other kernels below 2, 4 or 8 tokens, and for those beyond the last multiple of 4.

Hence the rules here. A prompt's tokens are decoded in whole blocks or in fewer than 64 of a stream, by their
place in the prompt alone (`blocks.py`). All streams of a part get as many tokens, and the part has 8 or more,
a multiple of 4; fillers make up what lacks. The same holds for the tokens after which logits are wanted.
Of the calls that the rules allow, the one with the most rows' tokens for its cost is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.blocks import BLOCK
from pipeline.engine.sequence import Sequence, State
from pipeline.engine.step import Filler, Piece, Step

QUAD = 4
# The most tokens of a stream that attention takes one by one, rounded down to a multiple of QUAD.
_SHORT = 60
_LEAST = 8
# What a call costs beside its tokens, in tokens: measured on small models.
_OVERHEAD = 5
# So many different lengths of a part are compared at most.
_CHOICES = 12


@dataclass(frozen=True, slots=True)
class Part:
    """`count` tokens in each of the sequences from `first` to `last`."""

    first: int
    last: int
    count: int


def stream_step(rows: Iterable[Sequence], held: Callable[[int], int], *, streams: int, tokens: int) -> Step:
    """The next call for `rows`; an empty step where there are none.

    held: the cells that a sequence id holds. streams: sequence ids. tokens: the most of a call,
    at least BLOCK and `streams`.
    """
    ready = {row.slot: row for row in rows}
    if not ready:
        return Step()
    echoing = [row for row in ready.values() if row.echo and row.state is State.PREFILL]
    if echoing:  # All its logits are wanted, and of no other row there is room for any.
        ready = {echoing[0].slot: echoing[0]}
    whole, short = np.zeros(streams, int), np.zeros(streams, int)
    for slot, row in ready.items():
        in_blocks, count = row.stretch()
        (whole if in_blocks else short)[slot] = count
    if whole.any():
        counts, part = whole, _block_part(whole, BLOCK if echoing else tokens)
    else:
        counts = np.minimum(short, _SHORT)
        part = _short_part(counts, tokens)
    return _with_outputs(_filled(part, counts, ready, held))


def _block_part(counts: NDArray[np.int_], tokens: int) -> Part:
    lengths = [length for length in range(BLOCK, tokens + 1, BLOCK) if length <= counts.max()]
    return _best(counts, lengths, tokens, fill=False)


def _short_part(counts: NDArray[np.int_], tokens: int) -> Part:
    lengths = np.unique(counts[counts > 0])
    if len(lengths) > _CHOICES:
        lengths = lengths[np.linspace(0, len(lengths) - 1, _CHOICES).astype(int)]
    return _best(counts, lengths.tolist(), tokens, fill=True)


def _best(counts: NDArray[np.int_], lengths: list[int], tokens: int, *, fill: bool) -> Part:
    """The part in which most of the work is the rows'.

    counts: tokens that each sequence has to decode, shape [streams]. lengths: to choose from, ascending.
    fill: whether a row may have less than the part's length.
    """
    best, found = 0.0, Part(0, 0, 0)
    widths = _widths(len(counts))
    for length in lengths:
        sums = np.concatenate([[0], np.cumsum(np.minimum(counts, length))])
        useful = sums[None, 1:] - sums[:-1, None]
        sizes = widths * _rounded(len(counts), length)[widths]
        allowed = (widths > 0) & (sizes <= tokens) & (fill | (useful == sizes))
        values = np.where(allowed, useful / (sizes + _OVERHEAD), 0)
        first, last = divmod(int(values.argmax()), len(counts))
        if values[first, last] > best:
            best = float(values[first, last])
            found = Part(first, last, int(_rounded(len(counts), length)[widths[first, last]]))
    return found


@lru_cache
def _widths(streams: int) -> NDArray[np.int_]:
    """How many sequences lie from one to another, shape [streams, streams]; 0 where the other is before."""
    widths: NDArray[np.int_] = np.subtract.outer(-np.arange(streams), -np.arange(1, streams + 1))
    return widths.clip(0)


@lru_cache(maxsize=1024)
def _rounded(streams: int, length: int) -> NDArray[np.int_]:
    """The fewest tokens of each stream, `length` at least, with which a part of 0 to `streams` streams keeps
    to the rules, shape [streams + 1]."""
    return np.array([0, *(_fewest(width, length) for width in range(1, streams + 1))])


def _fewest(streams: int, length: int) -> int:
    multiple = QUAD // gcd(QUAD, streams)
    least = max(length, -(-_LEAST // streams))
    return -(-least // multiple) * multiple


def _filled(
    part: Part, counts: NDArray[np.int_], rows: dict[int, Sequence], held: Callable[[int], int]
) -> Step:
    """The part's tokens: each row's own as far as they go, and fillers behind them."""
    step = Step()
    for slot in range(part.first, part.last + 1):
        own = min(part.count, int(counts[slot]))
        if own:
            step.parts.append(Piece.of(rows[slot], own))
        if own < part.count:
            step.parts.append(Filler(slot, held(slot) + own, part.count - own))
    return step


def _with_outputs(step: Step) -> Step:
    """The step with further logits, that nobody reads, where their number calls for it."""
    wanted = sum(part.outputs for part in step.parts)
    lacking = _fewest(1, wanted) - wanted if wanted else 0
    for at, part in enumerate(step.parts):
        more = min(lacking, part.count - part.outputs)
        step.parts[at] = part.with_outputs(more)
        lacking -= more
    return step
