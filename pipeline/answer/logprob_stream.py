"""The log-probabilities of an answer's tokens as its text comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from pipeline.answer.answer import Logprobs
from pipeline.answer.logprobs import LogprobWriter, Offsets, Placed
from pipeline.chat.pieces import Piece
from pipeline.engine.sampling.logprobs import TokenLogprob


class LogprobStream:
    """Gives each listed token of one choice once, with the text in which it begins."""

    def __init__(self, writer: LogprobWriter, piece: Piece, before: int | None) -> None:
        """before: characters of a completion's echoed prompt; None for a chat."""
        self._writer = writer
        self._piece = piece
        self._offsets = Offsets()
        self._before = before
        self._taken = 0
        self._left: deque[Placed] = deque()

    def take(self, entries: Sequence[TokenLogprob], stop: int) -> Logprobs | None:
        """Those of the tokens that begin before character `stop`, in the shape of `Choice.logprobs`.

        entries: of all tokens so far; a row that starts again goes through the same ones."""
        new = entries[self._taken :]
        self._left.extend(zip(new, self._offsets.of(self._piece(entry.token) for entry in new), strict=True))
        self._taken = max(self._taken, len(entries))
        found = []
        while self._left and self._left[0][1] < stop:
            found.append(self._left.popleft())
        listed = self._writer.listed(found, stop)
        if not listed:
            return None
        if self._before is None:
            return self._writer.chat_shape(listed)
        return self._writer.completion_shape(listed, self._before)
