"""Which tokens of a prompt are computed in blocks: by its text, the model and the kind of CPU alone, so in
every schedule the same.

llama.cpp's attention on the CPU takes the tokens of a stream in tiles where a call has BLOCK or more of them,
and else one by one (`ggml_compute_forward_flash_attn_ext_f16`). Both round in their own way; within a tile a
token's numbers do not depend on the others. So a token of either kind can be computed in any call of its
kind, beside any other tokens. Fewer than BLOCK tokens are filled up with throw-away ones: that costs as much
as if they were there, and is still cheaper where single tokens meet many cells.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Tokens of a stream in one call from which on attention takes them in tiles (GGML_FA_TILE_Q).
BLOCK = 64
# Tokens between the control token that ends a turn and the next one's text, in the usual templates
# ("\n<|im_start|>user\n", "<|start_header_id|>user<|end_header_id|>\n\n").
TURN_HEADER = 4
# A control token so soon after a turn's start belongs to its header; so near to the end, to the answer's.
SHORTEST_TURN = 16
# Rows may share most of a turn that is at least this long, and its last tokens are then all that they decode.
LONG_TURN = 2 * BLOCK


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """What a token's attention to one cell costs, in parts of what the model's matrices cost a token.

    single: where a call has fewer than BLOCK tokens of the stream. block: where it has more.
    Equal on all nodes that round alike. The defaults were measured: SmolLM2-135M Q4_1, AVX2.
    """

    single: float = 0.0017
    block: float = 0.0005

    @classmethod
    def of(cls, query_values: int, parameters: int, buffers: Collection[str]) -> AttentionCost:
        """query_values: numbers in a token's queries, all layers together. buffers: what holds the weights.
        AMX makes matrices several times as cheap, and attention no cheaper (measured on a Xeon)."""
        single, block = (128, 14) if "AMX" in buffers else (13, 4)
        share = query_values / max(1, parameters)
        return cls(single * share, block * share)

    def prefers_block(self, start: int, count: int) -> bool:
        """Whether `count` tokens behind `start` cells cost less filled up to a block than one by one."""
        return count * (1 + self.single * start) >= BLOCK * (1 + self.block * start)


def in_blocks(
    tokens: NDArray[np.int32], control: NDArray[np.bool_], cost: AttentionCost
) -> NDArray[np.bool_]:
    """Which tokens of a beginning are computed in blocks, shape [len(tokens)].

    control: which tokens of the vocabulary are control tokens.

    What comes before the last turn's text is likely to be shared, so its kind does not depend on that text.
    The last tokens of a long turn are on their own: they may be all that a row has to itself, and about half
    of them are taken to be.
    """
    turn = _last_turn(tokens, control)
    length = len(tokens) - turn
    rest = turn + (length - length % BLOCK if length >= LONG_TURN else 0)
    own = (len(tokens) - rest) // (2 if rest > turn else 1)
    blocks = np.zeros(len(tokens), bool)
    blocks[:turn] = cost.prefers_block(0, turn)
    blocks[turn:rest] = True
    blocks[rest:] = cost.prefers_block(rest, own)
    return blocks


def _last_turn(tokens: NDArray[np.int32], control: NDArray[np.bool_]) -> int:
    """Where the text of the last turn begins that has a text; 0 where there is one turn."""
    found = 0
    for at in np.flatnonzero(control[tokens]).tolist():
        start = at + 1 + TURN_HEADER
        if at + 1 - found >= SHORTEST_TURN and start + SHORTEST_TURN <= len(tokens):
            found = start
    return found
