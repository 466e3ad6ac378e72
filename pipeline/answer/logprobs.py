"""Log-probabilities of tokens, in the shapes of OpenAI's chats and completions."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.chat.pieces import Piece
from pipeline.engine.model import Vocabulary
from pipeline.engine.sampling.logprobs import TokenLogprob
from pipeline.engine.sequence import Generation

Record = dict[str, Any]

Placed = tuple[TokenLogprob, int]
"""A token, and the place in the text where it begins."""
# A token's text, what is known of it, and its place.
_Entry = tuple[str, TokenLogprob | None, int]

LOWEST = -9999.0
"""What OpenAI writes for a token that is as good as impossible; JSON has no infinity."""


@dataclass(frozen=True)
class LogprobWriter:
    """Listed are the tokens that the text is made of: neither the end of generation nor what a stop
    string cut off. A token's text is its own bytes, with U+FFFD for a part of a character; a control
    token has no bytes, and its name for a text."""

    vocabulary: Vocabulary

    def chat(self, generation: Generation, piece: Piece | None = None) -> Record | None:
        """A choice's `logprobs`; None where they weren't asked for. piece: the bytes of the text's tokens,
        where some of them are control tokens."""
        if not generation.logprobs:
            return None
        return self.chat_shape(self._of_text(generation, piece))

    def chat_shape(self, listed: Iterable[Placed]) -> Record:
        """`listed` as a chat's log-probabilities."""
        return {"content": [self._content(entry) for entry, _ in listed], "refusal": None}

    def completion(self, generation: Generation, echo: str | None = None) -> Record | None:
        """As `chat`. echo: the prompt's text, where the answer's text begins with it.

        The prompt's first token has no probability: null.
        """
        if not generation.logprobs:
            return None
        asked = self._echoed(generation, echo) if echo is not None else []
        return self.completion_shape(self._of_text(generation), len(echo or ""), asked)

    def completion_shape(
        self, listed: Iterable[Placed], before: int, echoed: Sequence[_Entry] = ()
    ) -> Record:
        """`listed` as a completion's log-probabilities. before: characters before the answer's text.
        echoed: the prompt's tokens."""
        found: list[_Entry] = [(self.text(entry.token), entry, at + before) for entry, at in listed]
        entries = [*echoed, *found]
        return {
            "tokens": [text for text, _, _ in entries],
            "token_logprobs": [entry and finite(entry.logprob) for _, entry, _ in entries],
            "top_logprobs": [entry and self._likeliest(entry) for _, entry, _ in entries],
            "text_offset": [at for _, _, at in entries],
        }

    def listed(self, tokens: Iterable[Placed], stop: int) -> list[Placed]:
        """Those that begin before character `stop`, and don't end the generation."""
        return [(entry, at) for entry, at in tokens if at < stop and not self.vocabulary.is_eog(entry.token)]

    def text(self, token: int) -> str:
        return self.vocabulary.piece(token).decode(errors="replace") or self._names.get(token, "")

    @cached_property
    def _names(self) -> dict[int, str]:
        """The control tokens' texts, by which templates call them."""
        known = ((self._tokenize(text), text) for text in self.vocabulary.control_texts)
        return {tokens[0]: text for tokens, text in known if len(tokens) == 1}

    def _tokenize(self, text: str) -> list[int]:
        return self.vocabulary.tokenize(text, add_special=False, parse_special=True)

    def _of_text(self, generation: Generation, piece: Piece | None = None) -> list[Placed]:
        pieces = map(piece or self.vocabulary.piece, (entry.token for entry in generation.logprobs))
        placed = zip(generation.logprobs, Offsets().of(pieces), strict=True)
        return self.listed(placed, len(generation.text))

    def _echoed(self, generation: Generation, prompt: str) -> list[_Entry]:
        """The prompt's tokens. Which token is the first nobody says: it is what the others leave over."""
        entries = [entry for entry in generation.prompt_logprobs if entry]
        if len(entries) == len(generation.prompt_logprobs):
            return []
        pieces = [self.vocabulary.piece(entry.token) for entry in entries]
        rest, whole = b"".join(pieces), prompt.encode()
        first = whole.removesuffix(rest) if whole.endswith(rest) else b""
        # Some tokenizers begin a text with a blank of their own.
        before = len((first + rest).decode(errors="replace")) - len(prompt)
        offsets = (max(0, at - before) for at in Offsets().of([first, *pieces]))
        texts = [first.decode(errors="replace"), *(self.text(entry.token) for entry in entries)]
        return list(zip(texts, [None, *entries], offsets, strict=True))

    def _content(self, entry: TokenLogprob) -> Record:
        likeliest = [self._token(token, logprob) for token, logprob in entry.top]
        return self._token(entry.token, entry.logprob) | {"top_logprobs": likeliest}

    def _token(self, token: int, logprob: float) -> Record:
        piece = self.vocabulary.piece(token)
        return {"token": self.text(token), "logprob": finite(logprob), "bytes": list(piece) or None}

    def _likeliest(self, entry: TokenLogprob) -> list[Record]:
        """The likeliest tokens, likeliest first, and the chosen one."""
        found = dict(entry.top) | {entry.token: entry.logprob}
        return [self._token(token, logprob) for token, logprob in found.items()]


class Offsets:
    """Where the tokens of a text begin, in characters; inside a character counts as where that begins."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def of(self, pieces: Iterable[bytes]) -> list[int]:
        """Those of the next tokens, by their bytes."""
        return [self._next(piece) for piece in pieces]

    def _next(self, piece: bytes) -> int:
        at = self._at
        self._at += len(self._decoder.decode(piece))
        return at


def prompt_text(prompt: str | Sequence[int], vocabulary: Vocabulary | None) -> str:
    """What `echo` puts before the answer: the prompt as it was asked, or its tokens' text."""
    if isinstance(prompt, str):
        return prompt
    assert vocabulary is not None, "token ids have no text without a vocabulary"
    return b"".join(map(vocabulary.piece, prompt)).decode(errors="replace")


def finite(logprob: float) -> float:
    """As OpenAI writes it."""
    return max(logprob, LOWEST)
