"""Calls in which each row, in a stream of its own, meets the same arithmetic whatever runs beside it.

So llama.cpp's CPU backend computes a call (its `split_equal`, `ggml_compute_forward_flash_attn_ext` and
`ggml_compute_forward_mul_mat`, and the repacked types):

- in parts, each a run of consecutive sequence ids with equally many tokens;
- attention in tiles from 64 tokens of a stream on, else token by token, in two ways that round differently;
- matrices by other kernels below 2, 4 or 8 tokens, and for those beyond the last multiple of 4.

Hence the rules here. A prompt's tokens are decoded in blocks, in calls with 64 or more of a stream, or singly
in calls with fewer, by the prompt alone (`blocks.py`). All streams of a part get as many tokens, and the
part has 8 or more, a multiple of 4; fillers behind a row's own tokens make up what lacks. The same holds for
the tokens after which logits are wanted.
Of the calls that the rules allow, the one with the most rows' tokens for its cost is made: which one it is
changes no row's numbers.
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
    blocks, single = np.zeros(streams, int), np.zeros(streams, int)
    for slot, row in ready.items():
        in_blocks, count = row.stretch()
        (blocks if in_blocks else single)[slot] = count
    if blocks.any():
        counts, least, most = blocks, BLOCK, BLOCK if echoing else tokens
    else:
        counts, least, most = np.minimum(single, _SHORT), 1, tokens
    part = _best_part(tuple(counts.tolist()), least, most)
    return _with_outputs(_filled(part, counts, least, ready, held))


@lru_cache(maxsize=256)  # While rows generate, each step is like the one before.
def _best_part(pending: tuple[int, ...], least: int, tokens: int) -> Part:
    """The part in which most of the work is the rows'.

    pending: tokens that each sequence has to decode. least: tokens of each stream.
    """
    counts = np.array(pending)
    streams, widths = len(counts), _widths(len(counts))
    lengths = _lengths(counts, least, tokens)
    sums = np.cumsum(_own(counts, lengths[:, None], least), axis=1)
    sums = np.concatenate([np.zeros((len(lengths), 1), int), sums], axis=1)
    useful = sums[:, None, 1:] - sums[:, :-1, None]  # [lengths, first, last]
    each = np.stack([_rounded(streams, length)[widths] for length in lengths.tolist()])
    sizes = widths * each
    values = np.where((widths > 0) & (sizes <= tokens), useful / (sizes + _OVERHEAD), 0)
    at, first, last = np.unravel_index(values.argmax(), values.shape)
    return Part(int(first), int(last), int(each[at, first, last]))


def _lengths(counts: NDArray[np.int_], least: int, tokens: int) -> NDArray[np.int_]:
    """Lengths of a part to choose from: those with which rows' tokens end, and whole blocks of long ones."""
    ends = np.unique(counts[counts > 0].clip(least, tokens))
    if len(ends) > _CHOICES:
        ends = ends[np.linspace(0, len(ends) - 1, _CHOICES).astype(int)]
    return np.union1d(ends, np.arange(BLOCK, min(ends[-1], tokens) + 1, BLOCK)) if least == BLOCK else ends


def _own(counts: NDArray[np.int_], length: NDArray[np.int_] | int, least: int) -> NDArray[np.int_]:
    """How many of `counts` tokens a row decodes in a part: it leaves none, or `least` for a later one."""
    left = counts - length
    return np.where((left > 0) & (left < least), np.maximum(counts - least, 1), np.minimum(counts, length))


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
    part: Part,
    counts: NDArray[np.int_],
    least: int,
    rows: dict[int, Sequence],
    held: Callable[[int], int],
) -> Step:
    """The part's tokens: each row's own as far as they go, and fillers behind them."""
    step = Step()
    owns = _own(counts, part.count, least).tolist()
    for slot in range(part.first, part.last + 1):
        own = owns[slot]
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
        if more:
            step.parts[at] = part.with_outputs(more)
            lacking -= more
    return step
