"""From tokens to text: characters that span tokens, stop strings that span tokens."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """The text of one generation, as its tokens come.

    piece: the bytes of a token. stops: strings that end the text and are no part of it.
    skip: bytes at the beginning of the tokens that are no part of it either.
    """

    def __init__(self, piece: Callable[[int], bytes], stops: tuple[str, ...] = (), skip: int = 0) -> None:
        self._piece = piece
        self._skip = self._to_skip = skip
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: list[str] = []
        self._stopped = False
        # The stop string that ended the text.
        self.stop: str | None = None
        # The end of the text in which a stop string could still begin.
        self._tail = ""

    def restart(self) -> TextStream:
        """A stream like this one was before its first token."""
        return TextStream(self._piece, self._stops, self._skip)

    def push(self, token: int) -> bool:
        """Takes the next token. True: a stop string is complete, and the text ends before it."""
        piece = self._piece(token)
        own, self._to_skip = piece[self._to_skip :], max(0, self._to_skip - len(piece))
        self._stopped = self._append(self._decoder.decode(own))
        return self._stopped

    def so_far(self) -> str:
        """The text but for an end with which a stop string may begin."""
        self._parts = ["".join(self._parts)]
        return self._parts[0] + self._tail[: len(self._tail) - begun(self._tail, self._stops)]

    def finish(self) -> str:
        """The whole text. Bytes of a character that never became whole become U+FFFD."""
        if not self._stopped:
            self._append(self._decoder.decode(b"", final=True))
        return "".join([*self._parts, self._tail])

    def _append(self, text: str) -> bool:
        if not self._stops:
            self._parts.append(text)
            return False
        self._tail += text
        found = [(at, stop) for stop in self._stops if (at := self._tail.find(stop)) >= 0]
        if found:
            at, self.stop = min(found)
            self._tail = self._tail[:at]
            return True
        safe = max(0, len(self._tail) - self._longest + 1)
        self._parts.append(self._tail[:safe])
        self._tail = self._tail[safe:]
        return False


def begun(text: str, marks: Sequence[str]) -> int:
    """The length of the longest end of `text` with which one of `marks` begins but does not end."""
    longest = max(map(len, marks), default=0)
    for at in range(max(0, len(text) - longest + 1), len(text)):
        if any(mark.startswith(text[at:]) for mark in marks):
            return len(text) - at
    return 0
