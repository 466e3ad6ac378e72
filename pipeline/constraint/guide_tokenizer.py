"""A vocabulary as llguidance knows one."""

from __future__ import annotations

from llguidance import LLTokenizer, TokenizerWrapper

from pipeline.engine.model import Vocabulary

# SentencePiece puts a blank before a text: none comes after a line break.
_LEAD = "\n"


def new_tokenizer(vocabulary: Vocabulary, controls: dict[str, int]) -> LLTokenizer:
    """Takes some tenths of a second. controls: the control tokens by their texts."""
    return LLTokenizer(
        TokenizerWrapper(_Tokenizer(vocabulary, controls)), eos_token=list(vocabulary.end_tokens)
    )


class _Tokenizer:
    """What llguidance's `TokenizerWrapper` asks for."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, controls: dict[str, int]) -> None:
        texts = {token: text.encode() for text, token in controls.items()}
        self._vocabulary = vocabulary
        self._lead = self._tokens(_LEAD)
        self.eos_token_id = vocabulary.end_tokens[0]
        self.special_token_ids = sorted(texts)
        self.tokens = [texts.get(token) or vocabulary.piece(token) for token in range(vocabulary.size)]

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of a text in the middle of another."""
        letters = text.decode()
        tokens = self._tokens(letters)
        if self._pieces(tokens) == text:
            return tokens
        tokens = self._tokens(_LEAD + letters)
        return tokens[len(self._lead) :] if tokens[: len(self._lead)] == self._lead else []

    def _tokens(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, add_special=False, parse_special=False)

    def _pieces(self, tokens: list[int]) -> bytes:
        return b"".join(map(self._vocabulary.piece, tokens))
