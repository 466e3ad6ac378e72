"""Calls in which each row, in a stream of its own, meets the same arithmetic whatever runs beside it.

So llama.cpp's CPU backend computes a call (its `split_equal`, `ggml_compute_forward_flash_attn_ext` and
`ggml_compute_forward_mul_mat`, and the repacked types):

- in parts, each a run of consecutive sequence ids with equally many tokens;
- attention in tiles from 64 tokens of a stream on, else token by token, in two ways that round differently;
- matrices by other kernels below 2, 4 or 8 tokens, and for those beyond the last multiple of 4.

Hence the rules here. A prompt's tokens are decoded in whole blocks or in fewer than 64 of a stream, by their
place in the prompt alone (`blocks.py`). All streams of a part get as many tokens, and the part has 8 or more,
a multiple of 4; fillers make up what lacks. The same holds for the tokens after which logits are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items

from pipeline.engine.blocks import BLOCK
from pipeline.engine.sequence import Sequence, State
from pipeline.engine.step import Filler, Piece, Step

# The most tokens of a stream that attention takes one by one, rounded down to a multiple of _QUAD.
_SHORT = 60
_QUAD = 4
_LEAST = 8


def stream_step(rows: Iterable[Sequence], held: Callable[[int], int], *, streams: int, tokens: int) -> Step:
    """The next call for `rows`, prompts first; an empty step where there are none.

    held: the cells that a sequence id holds. streams: sequence ids. tokens: the most of a part,
    at least BLOCK and `streams`.
    """
    ready = {row: row.stretch() for row in sorted(rows, key=lambda row: row.slot)}
    blocks = {row: count for row, (whole, count) in ready.items() if whole}
    if blocks:
        return _longest([_block_part(run, blocks, tokens) for run in _runs(blocks)])
    prompts = {row: count for row, (_, count) in ready.items() if count > 1 or row.state is State.PREFILL}
    if prompts:
        return _longest([_short_part(run, prompts, tokens) for run in _runs(prompts)])
    parts = [_single_part(lanes, ready, held) for lanes in _lanes(ready, streams)]
    return Step([part for step in parts for part in step.parts])


def _runs(rows: Iterable[Sequence]) -> list[list[Sequence]]:
    """Rows in consecutive slots, by themselves where all their tokens' logits are wanted."""
    runs: list[list[Sequence]] = []
    for row in rows:
        if runs and row.slot == runs[-1][-1].slot + 1 and not (row.echo or runs[-1][-1].echo):
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


def _longest(steps: list[Step]) -> Step:
    return max(steps, key=lambda step: sum(part.count for part in step.parts if isinstance(part, Piece)))


def _block_part(run: list[Sequence], counts: dict[Sequence, int], tokens: int) -> Step:
    run = run[: max(1, tokens // BLOCK)]
    most = 1 if run[0].echo else max(1, tokens // (BLOCK * len(run)))
    return _part(run, BLOCK * min(most, *(counts[row] // BLOCK for row in run)))


def _short_part(run: list[Sequence], counts: dict[Sequence, int], tokens: int) -> Step:
    count = min(_SHORT, *(counts[row] for row in run))
    run = run[: max(1, tokens // (count + _QUAD))]
    return _part(run, _rounded(len(run), count))


def _lanes(rows: Iterable[Sequence], streams: int) -> list[list[int]]:
    """The runs of sequence ids that the rows' slots fall in, if those are taken four by four."""
    taken = {row.slot // _QUAD for row in rows}
    lanes = [lane for lane in range(streams) if lane // _QUAD in taken]
    runs: list[list[int]] = []
    for lane in lanes:
        if runs and lane == runs[-1][-1] + 1:
            runs[-1].append(lane)
        else:
            runs.append([lane])
    return runs


def _single_part(lanes: list[int], rows: Iterable[Sequence], held: Callable[[int], int]) -> Step:
    """One token of each row in these lanes, and fillers in the others."""
    by_slot = {row.slot: row for row in rows}
    count = _rounded(len(lanes), 1)
    step = Step()
    for lane in lanes:
        row = by_slot.get(lane)
        if row:
            step.parts.append(Piece(row, 1, 1))
        if count > bool(row):
            fill = count - bool(row)
            step.parts.append(Filler(lane, row.filled + 1 if row else held(lane), fill, fill))
    return step


def _part(run: Items[Sequence], count: int) -> Step:
    """`count` tokens in each row's stream, its own as far as they go."""
    step = Step()
    for row in run:
        own = min(count, row.stretch()[1])
        last = row.filled + own == row.length
        step.parts.append(Piece(row, own, own if row.echo and row.state is State.PREFILL else int(last)))
        if own < count:
            step.parts.append(Filler(row.slot, row.filled + own, count - own))
    return _with_outputs(step)


def _with_outputs(step: Step) -> Step:
    """The step with further logits, that nobody reads, where their number calls for it."""
    wanted = sum(part.outputs for part in step.parts)
    lacking = _rounded(1, wanted) - wanted if wanted else 0
    for at, part in enumerate(step.parts):
        more = min(lacking, part.count - part.outputs)
        step.parts[at] = part.with_outputs(more)
        lacking -= more
    return step


def _rounded(streams: int, count: int) -> int:
    """The fewest tokens of each stream, `count` at least, with which a part keeps to the rules."""
    while streams * count < _LEAST or streams * count % _QUAD:
        count += 1
    return count
