"""The bytes of an answer's tokens: of control tokens, those that mark reasoning and calls are text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

from pipeline.engine.model import Vocabulary

Piece = Callable[[int], bytes]
"""The bytes of a token; b"" for one that is no text."""


def control_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """The control tokens by their texts, the longest first."""
    found = {}
    for text in sorted(vocabulary.control_texts, key=len, reverse=True):
        tokens = vocabulary.tokenize(text, add_special=False, parse_special=True)
        token = tokens[-1] if tokens else -1
        if token >= 0 and vocabulary.is_control(token):
            found[text] = token
    return found


class Pieces:
    """The pieces of one vocabulary. Safe for several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.showing = lru_cache(16)(self._showing)

    def _showing(self, marks: tuple[str, ...]) -> Piece:
        """The vocabulary's pieces, and the texts of the control tokens that stand in one of the marks."""
        shown = {
            token: text.encode()
            for text, token in self._controls.items()
            if any(text in mark for mark in marks)
        }
        piece = self._vocabulary.piece
        return (lambda token: shown.get(token) or piece(token)) if shown else piece

    @cached_property
    def _controls(self) -> dict[str, int]:
        return control_tokens(self._vocabulary)
