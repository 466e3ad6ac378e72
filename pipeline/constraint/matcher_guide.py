"""A guide over llguidance's matcher: which tokens may come next, whatever the model makes of them."""

from __future__ import annotations

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from pipeline.errors import RowError

_FIRST_LINE = 300


class MatcherGuide:
    """What a constraint allows. Not for two threads at once."""

    def __init__(
        self,
        matcher: LLMatcher,
        tokenizer: LLTokenizer,
        ends: NDArray[np.int32],
        size: int,
        param: str | None,
    ) -> None:
        """ends: the end-of-generation tokens as a bitmask. size: of the vocabulary."""
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._ends = ends
        self._size = size
        self._param = param
        self._bits = np.zeros(len(ends), np.int32)
        self._fresh = False

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Raises RowError where the constraint became too complex to follow."""
        self._look()
        barred = np.unpackbits(np.invert(self._bits).view(np.uint8), count=self._size, bitorder="little")
        np.copyto(logits, -np.inf, where=barred.view(np.bool_))

    def accept(self, token: int) -> None:
        """Raises RowError where `token` may not come next."""
        self._fresh = False
        if not self._matcher.consume_token(token):
            raise self._failure()

    def accept_text(self, text: bytes) -> None:
        """As `accept`, of any tokens that have this text."""
        for token in self._tokenizer.tokenize_bytes(text):
            self.accept(token)

    def allowed(self) -> list[int]:
        """The tokens that may come next, ascending."""
        self._look()
        bits = np.unpackbits(self._bits.view(np.uint8), count=self._size, bitorder="little")
        return [int(token) for token in np.flatnonzero(bits)]

    def forced(self) -> list[int]:
        return self._matcher.compute_ff_tokens()

    @property
    def done(self) -> bool:
        if self._matcher.is_stopped() or not self._matcher.is_accepting():
            return self._matcher.is_stopped()
        self._look()
        return not np.any(self._bits & ~self._ends)

    @property
    def complete(self) -> bool:
        return self._matcher.is_accepting() and not self._matcher.is_error()

    def copy(self) -> MatcherGuide:
        return MatcherGuide(self._matcher.deep_copy(), self._tokenizer, self._ends, self._size, self._param)

    def _look(self) -> None:
        """Bit t of `_bits`: token t may come next."""
        if self._fresh:
            return
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise self._failure()
        self._fresh = True

    def _failure(self) -> RowError:
        reason = self._matcher.get_error().partition("\n")[0][:_FIRST_LINE]
        return RowError("invalid_request", f"{self._param} can't be followed: {reason}", self._param)
