"""The texts with which a constraint lets an answer go on, where they are few."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from llguidance import LLMatcher, LLTokenizer

MOST_BYTES = 4096
_BYTES = 256
_ENDS_NUMBER = b",}] \t\n\r"


@cache
def byte_tokenizer() -> LLTokenizer:
    """A vocabulary of the 256 bytes: each byte is the token of its number."""
    return LLTokenizer("byte")


def following(matcher: LLMatcher) -> tuple[bytes, bool]:
    """The bytes of which any may come next, ascending, and whether the text may end here."""
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    return bytes(np.flatnonzero(bits[:_BYTES]).tolist()), matcher.is_accepting()


def after(matcher: LLMatcher, text: bytes) -> LLMatcher:
    """A copy of `matcher` that has read `text`; its state is an error where it can't."""
    copy = matcher.deep_copy()
    copy.consume_tokens(list(text))
    return copy


def wholes(matcher: LLMatcher, most: int) -> list[bytes] | None:
    """All texts with which the answer may go on to its end; None where they are more than `most`."""

    def ends(text: bytes, byte: int | None) -> bytes | None:
        return text if byte is None else None

    return _search(matcher, b"", most, ends)


def scalars(matcher: LLMatcher, begun: bytes, most: int) -> list[bytes] | None:
    """All JSON scalars, quotes included, that the text may go on with; None where they are more than `most`,
    or where objects or arrays may come as well. begun: what was read of the scalar."""

    def ends(text: bytes, byte: int | None) -> bytes | None:
        if not text.startswith(b'"'):
            return text if byte is None or byte in _ENDS_NUMBER else None
        return text + b'"' if byte == 0x22 and text != b"" and not _is_escaped(text) else None

    if not begun and set(following(matcher)[0]) & set(b"{[]"):
        return None
    return _search(matcher, begun, most, ends)


def _search(
    matcher: LLMatcher, begun: bytes, most: int, ends: Callable[[bytes, int | None], bytes | None]
) -> list[bytes] | None:
    """Byte by byte, all texts at once: each one that isn't at its end is the beginning of at least one more.

    ends: the whole text, where `byte`, or the answer's end, after `text` closes it.
    """
    found: dict[bytes, None] = {}
    open_texts = [(matcher, begun)]
    for _ in range(MOST_BYTES):
        longer = []
        for state, text in open_texts:
            allowed, may_end = following(state)
            for byte in (*allowed, *([None] if may_end else [])):
                if (whole := ends(text, byte)) is not None:
                    found[whole] = None
                elif byte is not None:
                    longer.append((after(state, bytes([byte])), text + bytes([byte])))
            if len(found) + len(longer) > most:
                return None
        if not longer:
            return list(found) if len(found) > 1 else None
        open_texts = longer
    return None


def _is_escaped(text: bytes) -> bool:
    """Whether the next byte of a JSON string is an escaped one."""
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
