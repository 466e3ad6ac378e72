"""How a model's own tokenizer spells a text in its place: after a prompt, or within an answer.

The tokens of a text depend on what stands before it: " good" behind "Answer:" is one token, whose blank may
already be part of the prompt; SentencePiece puts a blank behind control tokens; `":"` is one token though its
last quote begins the value. So a text is tokenised with the end of what stands before it, and may take some
of its tokens back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.engine.model import Vocabulary

Tokens = tuple[int, ...]

# Tokens of a text's end that are tokenised once more: as many, and on to where a word begins, up to the most.
_TAIL, _LONGEST_TAIL = 8, 64
KNOWN = _LONGEST_TAIL + 1
"""As many of the tokens before a text can matter to its own."""
# SentencePiece puts a blank before a text: none comes after a line break.
_LEAD = "\n"


@dataclass(frozen=True, slots=True)
class Spelling:
    """tokens: of a text in its place. back: how many tokens before it they replace. extra: how many bytes of
    the tokens are not the text's: those taken back, or a blank that the tokenizer puts before it."""

    tokens: Tokens
    back: int
    extra: int


class Speller:
    """Spells texts with one vocabulary. Safe for several threads."""

    def __init__(self, vocabulary: Vocabulary, controls: dict[str, int]) -> None:
        """controls: the control tokens by their texts."""
        self._vocabulary = vocabulary
        self._control_texts = {token: text for text, token in controls.items()}
        self._tail_of = lru_cache(1024)(self._new_tail)

    def piece(self, token: int) -> bytes:
        return self._vocabulary.piece(token)

    def spell(self, before: Sequence[int], text: str, *, most_back: int) -> Spelling:
        """before: the tokens that stand before the text. most_back: how many of them may be replaced."""
        tail, tokenize = self._tail_of(tuple(before[-KNOWN:]))
        head = self.text(tail)
        if tail or tokenize is not None:
            whole = (tokenize or self._inside)(head.decode() + text)
            same = _common(tail, whole)
            if len(tail) - same <= most_back and self.text(whole).endswith(head + text.encode()):
                extra = len(self.text(whole[same:])) - len(text.encode())
                # The last token always stays: its logits tell of the first one here.
                if same or len(before) > len(tail):
                    return Spelling(whole[same:], len(tail) - same, extra)
        return Spelling(self._inside(text), 0, 0)

    def is_own(self, before: Sequence[int], token: int, following: bytes) -> bool:
        """Whether the tokenizer would write `token` next, where the text goes on with `following`."""
        tail, tokenize = self._tail_of(tuple(before[-KNOWN:]))
        if not tail or tokenize is None:
            return True
        try:
            text = (self.text((*tail, token)) + following).decode()
        except UnicodeDecodeError:
            return True  # The rest of a character is still to come.
        return tokenize(text)[: len(tail) + 1] == (*tail, token)

    def context(self, before: Sequence[int]) -> Tokens:
        """The tokens before a text that matter to its own; equal ones spell it alike."""
        tail, _ = self._tail_of(tuple(before[-KNOWN:]))
        return tuple(before[max(0, len(before) - len(tail) - 1) :])

    def text(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self._vocabulary.piece, tokens))

    def _new_tail(self, before: Tokens) -> tuple[Tokens, Callable[[str], Tokens] | None]:
        """The last tokens of a text, and how to tokenise a longer text that begins with them: None where
        that is as any text in the middle of another."""
        for start in self._starts(before):
            tail = before[start:]
            try:
                head = self.text(tail).decode()
            except UnicodeDecodeError:
                continue
            control = self._control_texts.get(before[start - 1]) if start else None
            ways: list[Callable[[str], Tokens]] = [self._inside, self._plain]
            if control:  # A tokenizer's own blank is a part of what it tokenised before.
                ways = [self._behind(control), self._behind(control, blank=" ")]
            for way in ways:
                if (tail or control) and way(head) == tail:
                    return tail, way
        return (), None

    def _starts(self, before: Tokens) -> Iterator[int]:
        """Where a tail may begin: behind a control token, or else where a word does."""
        first = next((at + 1 for at in reversed(range(len(before))) if self._is_control(before[at])), 0)
        if len(before) - first <= _TAIL:
            yield first
            return
        for at in range(len(before) - _TAIL, max(first, len(before) - _LONGEST_TAIL) - 1, -1):
            if at == first or self.piece(before[at])[:1] in (b" ", b"\n", b"\t"):
                yield at

    def _is_control(self, token: int) -> bool:
        return token in self._control_texts or self._vocabulary.is_control(token)

    def _plain(self, text: str) -> Tokens:
        return tuple(self._vocabulary.tokenize(text, add_special=False, parse_special=False))

    def _behind(self, control: str, blank: str = "") -> Callable[[str], Tokens]:
        """blank: what the tokenizer puts before a text there, and the texts begin with already."""

        def tokenize(text: str) -> Tokens:
            text = text.removeprefix(blank)
            # The text's own marks stay letters: only the first one is a control token.
            lead = self._vocabulary.tokenize(control, add_special=False, parse_special=True)
            if any(other in text for other in self._control_texts.values()):
                return self._inside(text)
            whole = self._vocabulary.tokenize(control + text, add_special=False, parse_special=True)
            return tuple(whole[len(lead) :]) if whole[: len(lead)] == lead else self._inside(text)

        return tokenize

    def _inside(self, text: str) -> Tokens:
        """The tokens of a text in the middle of another."""
        tokens, data = self._plain(text), text.encode()
        if self.text(tokens) == data:
            return tokens
        lead, whole = self._plain(_LEAD), self._plain(_LEAD + text)
        rest = whole[len(lead) :] if whole[: len(lead)] == lead else ()
        return rest if self.text(rest) == data else tuple(self._letters(data))

    def _letters(self, data: bytes) -> Iterator[int]:
        """Byte by byte, where the tokenizer changes a text."""
        singles = self._singles()
        return (singles[byte] for byte in data if byte in singles)

    @lru_cache(1)  # noqa: B019
    def _singles(self) -> dict[int, int]:
        pieces = ((self.piece(token), token) for token in range(self._vocabulary.size))
        return {piece[0]: token for piece, token in pieces if len(piece) == 1}


def _common(one: Tokens, other: Tokens) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
