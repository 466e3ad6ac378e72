"""Requests become tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import takewhile

from pipeline.chat_template import ChatTemplate
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.fields import Text
from pipeline.schema import ChatRequest, CompletionRequest, EmbeddingRequest, Message

SHORTEST_PREFIX = 32
_CACHED_PREFIXES = 64
# They share no first letter, and no token that begins a text.
_PROBES = ("a", "Zero", "7")

Fields = tuple[tuple[str, str], ...]
"""A message as pairs of field and text, which can be a key."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """tokens: at least one. prefix: how many of them any chat with the same system messages begins with.

    It depends on nothing but the row, and is 0 where it would be too short to be worth sharing.
    """

    tokens: list[int]
    prefix: int


class PromptBuilder:
    """Prompts for one model. Safe for several threads."""

    def __init__(self, vocabulary: Vocabulary, context: int | None = None) -> None:
        """context: the most tokens of a row; a text that can't fit is refused before it is tokenised."""
        self._vocabulary = vocabulary
        self._context = context
        # Control tokens by their texts; none of them may come out of a message.
        controls = sorted(filter(None, vocabulary.control_texts), key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, controls))) if controls else None
        self._shared: Callable[[tuple[Fields, ...]], tuple[int, ...]]
        self._shared = lru_cache(_CACHED_PREFIXES)(self._common_to_all)

    def build(self, request: ChatRequest | CompletionRequest) -> Prompt:
        """Raises RowError where the template refuses, a token id is unknown, or nothing is left to decode."""
        if isinstance(request, ChatRequest):
            return self._chat([_fields(message) for message in request.messages])
        tokens = _text_tokens(self._vocabulary, request.prompt, "prompt", self._context)
        if not tokens:
            raise RowError("invalid_request", "prompt has no tokens", "prompt")
        return Prompt(tokens, 0)

    @cached_property
    def _template(self) -> ChatTemplate:
        vocabulary = self._vocabulary
        return ChatTemplate(vocabulary.chat_template, vocabulary.bos_text, vocabulary.eos_text)

    def _chat(self, messages: Sequence[Fields]) -> Prompt:
        size = sum(len(text.encode()) for message in messages for _, text in message)
        _check_size(self._vocabulary, size, "messages", self._context)
        tokens = self._tokens(messages)
        if not tokens:
            raise RowError("invalid_request", "messages have no tokens", "messages")
        system = tuple(takewhile(lambda message: ("role", "system") in message, messages))
        prefix = _common(tokens, self._shared(system))
        return Prompt(tokens, prefix if prefix >= SHORTEST_PREFIX else 0)

    def _common_to_all(self, system: tuple[Fields, ...]) -> tuple[int, ...]:
        """The tokens with which every chat begins that has these system messages, whatever follows them."""
        try:
            probes = [self._tokens([*system, (("role", "user"), ("content", text))]) for text in _PROBES]
        except RowError:
            return ()
        length = min(_common(probes[0], probe) for probe in probes)
        return tuple(probes[0][:length])

    def _tokens(self, messages: Sequence[Fields]) -> list[int]:
        """As llama-server tokenises, but for the control tokens' texts in messages, which stay letters."""
        if self._controls and any(self._controls.search(text) for m in messages for _, text in m):
            return self._guarded(messages, self._controls)
        return self._tokenize(self._template.render(list(map(dict, messages))))

    def _guarded(self, messages: Sequence[Fields], controls: re.Pattern[str]) -> list[int]:
        found: list[str] = []
        # No text holds its own hash.
        nonce = f"x{blake2b(repr(messages).encode(), digest_size=12).hexdigest()}x"

        def hide(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{nonce}{len(found) - 1}x"

        hidden = [{name: controls.sub(hide, text) for name, text in message} for message in messages]
        first, *rest = re.split(f"{nonce}([0-9]+)x", self._template.render(hidden))
        tokens = self._tokenize(first)
        for number, after in zip(rest[::2], rest[1::2], strict=True):
            tokens += self._vocabulary.tokenize(found[int(number)], add_special=False, parse_special=False)
            if after:
                tokens += self._vocabulary.tokenize(after, add_special=False, parse_special=True)
        return tokens

    def _tokenize(self, rendered: str) -> list[int]:
        """The beginning of a chat. BOS comes from the template or from the tokenizer, never twice."""
        bos = self._vocabulary.bos_text
        has_bos = bool(bos) and rendered.startswith(bos)
        return self._vocabulary.tokenize(rendered, add_special=not has_bos, parse_special=True)


def embedding_inputs(
    vocabulary: Vocabulary, request: EmbeddingRequest, context: int | None = None
) -> list[list[int]]:
    """The tokens of each input. Token ids are taken as they are.

    context: the most tokens of one input; a text that can't fit is refused before it is tokenised.
    Raises RowError for an unknown token id and for an input without tokens.
    """
    names = ["input"] if request.single else [f"input[{i}]" for i in range(len(request.inputs))]
    found = []
    for name, text in zip(names, request.inputs, strict=True):
        tokens = _text_tokens(vocabulary, text, name, context)
        if not tokens:
            raise RowError("invalid_request", f"{name} has no tokens", name)
        found.append(tokens)
    return found


def _text_tokens(vocabulary: Vocabulary, text: Text, param: str, context: int | None) -> list[int]:
    if isinstance(text, str):
        _check_size(vocabulary, sum(len(word.encode()) for word in text.split()), param, context)
        return vocabulary.tokenize(text, add_special=True, parse_special=False)
    for i, token in enumerate(text):
        if not 0 <= token < vocabulary.size:
            reason = f"{param}[{i}] must be a token id from 0 to {vocabulary.size - 1}, not {token}"
            raise RowError("invalid_request", reason, f"{param}[{i}]")
    return list(text)


def _check_size(vocabulary: Vocabulary, size: int, param: str, context: int | None) -> None:
    longest = vocabulary.longest_piece
    if context is not None and size > context * longest:
        reason = (
            f"{param} has {size} bytes, at least {size // longest} tokens, but the context holds {context}"
        )
        raise RowError("context_length_exceeded", reason, param)


def _fields(message: Message) -> Fields:
    return tuple((name, text) for name, text in message if text is not None)


def _common(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(tokens, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
