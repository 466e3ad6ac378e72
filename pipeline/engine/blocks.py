"""Which tokens of a prompt are decoded in whole blocks: by its text alone, so in every schedule the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# On the CPU, llama.cpp's attention takes fewer tokens of a stream one by one, so many or more in tiles.
BLOCK = 64
# Tokens between the control token that ends a turn and the next one's text, in the usual templates
# ("\n<|im_start|>user\n", "<|start_header_id|>user<|end_header_id|>\n\n").
TURN_HEADER = 4
# A control token so soon after a turn's start belongs to its header.
SHORTEST_TURN = 16


def whole_blocks(tokens: NDArray[np.int32], control: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which tokens of a beginning are decoded in blocks of BLOCK, shape [len(tokens)].

    Blocks are counted from where a turn's text begins, so that short texts behind a shared turn share all
    of it; what is left of a turn is decoded in smaller calls. control: the ids of control tokens.
    """
    starts = [0]
    for at in np.flatnonzero(np.isin(tokens, control)).tolist():
        if at + 1 - starts[-1] >= SHORTEST_TURN and at + 1 + TURN_HEADER < len(tokens):
            starts.append(at + 1 + TURN_HEADER)
    blocks = np.zeros(len(tokens), bool)
    for start, stop in pairwise([*starts, len(tokens)]):
        blocks[start : start + (stop - start) // BLOCK * BLOCK] = True
    return blocks


def block_start(blocks: NDArray[np.bool_], place: int) -> int:
    """The last place, `place` at most, at which no block is torn apart."""
    if not blocks[place]:
        return place
    before = np.flatnonzero(~blocks[:place])
    start = int(before[-1]) + 1 if len(before) else 0
    return place - (place - start) % BLOCK
