"""Requests become tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from pipeline.chat.chat_format import ChatFormat, ChatFormats
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.request.fields import Text
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest

Turns = list[dict[str, Any]]
"""Messages or tools, as a template gets them."""
Render = Callable[[Callable[[str], str]], str]
"""Renders a chat, each text of its messages and tools changed by a function."""


# What every template gets, or sets for itself.
_OWN = frozenset(("messages", "tools", "add_generation_prompt", "bos_token", "eos_token"))


class PromptBuilder:
    """Prompts for one model. Safe for several threads."""

    def __init__(
        self, vocabulary: Vocabulary, context: int | None = None, formats: ChatFormats | None = None
    ) -> None:
        """context: the most tokens of a row; a text that can't fit is refused before it is tokenised.
        formats: chat templates instead of the model's own."""
        self._vocabulary = vocabulary
        self._context = context
        self._formats = formats or ChatFormats.of_model(vocabulary)
        # Control tokens by their texts; none of them may come out of a message.
        controls = sorted(filter(None, vocabulary.control_texts), key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, controls))) if controls else None

    def build(self, request: ChatRequest | CompletionRequest) -> list[int]:
        """At least one token. Raises RowError where the template refuses, knows no tools though some are
        offered, a token id is unknown, nothing is left to decode, or no room for an answer."""
        for token, _ in request.logit_bias:
            _check_token(self._vocabulary, token, f"logit_bias.{token}")
        if isinstance(request, ChatRequest):
            param, tokens = "messages", self._chat(request)
        else:
            param = "prompt"
            tokens = _text_tokens(self._vocabulary, request.prompt, param, self._context)
        if not tokens:
            raise RowError("invalid_request", f"{param}: no tokens", param)
        if self._context is not None and len(tokens) >= self._context:
            reason = f"{len(tokens)} tokens, and the context holds {self._context}"
            allowed = f"at most {self._context - 1} leave room for an answer"
            raise RowError("context_length_exceeded", f"{param}: {reason}: {allowed}", param)
        return tokens

    def _chat(self, request: ChatRequest) -> list[int]:
        size = sum(len((message.content or "").encode()) for message in request.messages)
        _check_size(self._vocabulary, size, "messages", self._context)
        return self._tokens(*self._rendering(request))

    def written(self, request: ChatRequest) -> str:
        """The prompt's text. Raises RowError as `build` does for the template."""
        render, _ = self._rendering(request)
        return render(lambda text: text)

    def _rendering(self, request: ChatRequest) -> tuple[Render, list[Turns]]:
        """What renders the prompt, and what was said in it."""
        chat = self._formats.of(request)
        options = request.template_options
        ruled = bool(request.constraints) and not request.offered
        _check_options(chat, request)
        _check_tools(chat, request)
        messages = [message.for_template() for message in request.messages]
        tools = [tool.for_template() for tool in request.offered]

        def render(change: Callable[[str], str]) -> str:
            rendered = chat.render(_mapped(messages, change), _mapped(tools, change), options)
            return rendered + chat.answer_lead(rendered) if ruled else rendered

        return render, [messages, tools]

    def _tokens(self, render: Render, said: list[Turns]) -> list[int]:
        """As llama-server tokenises, but control tokens' texts in what was said stay letters."""
        if self._controls and any(self._controls.search(text) for text in _texts(said)):
            return self._guarded(render, said, self._controls)
        return self._tokenize(render(lambda text: text))

    def _guarded(self, render: Render, said: list[Turns], controls: re.Pattern[str]) -> list[int]:
        found: list[str] = []
        # No text holds its own hash.
        nonce = f"x{blake2b(repr(said).encode(), digest_size=12).hexdigest()}x"

        def hide(text: str) -> str:
            return controls.sub(note, text)

        def note(match: re.Match[str]) -> str:
            found.append(match[0])
            return f"{nonce}{len(found) - 1}x"

        first, *rest = re.split(f"{nonce}([0-9]+)x", render(hide))
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


def _check_options(chat: ChatFormat, request: ChatRequest) -> None:
    """What a template doesn't read, it can't serve; a value that asks for nothing is no loss."""
    reads = chat.template.reads
    for name, value in request.template_options.items():
        if name not in reads and value:
            own = name == "reasoning_effort" and request.reasoning_effort is not None
            param = name if own else f"chat_template_kwargs.{name}"
            known = ", ".join(sorted(reads - _OWN)) or "none"
            reason = f"{param}: the model's chat template reads no {name}; its variables: {known}"
            raise RowError("unsupported_parameter", reason, param)


def _check_tools(chat: ChatFormat, request: ChatRequest) -> None:
    if not request.offered or (chat.form and chat.knows_tools):
        return
    if chat.knows_tools:
        reason = "the model's chat template has calls written in a form that isn't known"
    else:
        reason = "the model's chat template knows no tools"
    cure = "name another one as model.chat_template"
    raise RowError("unsupported_parameter", f"tools: {reason}: {cure}", "tools")


def embedding_inputs(
    vocabulary: Vocabulary, request: EmbeddingRequest, context: int | None = None
) -> list[list[int]]:
    """The tokens of each input. Token ids are taken as they are.

    context: the most tokens of one input; a text that can't fit is refused before it is tokenised.
    Raises RowError for an unknown token id and for an input without tokens.
    """
    found = []
    for name, text in zip(request.names, request.inputs, strict=True):
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
        _check_token(vocabulary, token, f"{param}[{i}]")
    return list(text)


def _check_token(vocabulary: Vocabulary, token: int, param: str) -> None:
    if not 0 <= token < vocabulary.size:
        reason = f"{param} must be a token id from 0 to {vocabulary.size - 1}, not {token}"
        raise RowError("invalid_request", reason, param)


def _check_size(vocabulary: Vocabulary, size: int, param: str, context: int | None) -> None:
    longest = vocabulary.longest_piece
    if context is not None and size > context * longest:
        reason = (
            f"{param} has {size} bytes, at least {size // longest} tokens, but the context holds {context}"
        )
        raise RowError("context_length_exceeded", reason, param)


def _texts(value: Any) -> Iterator[str]:
    """Every string in `value`, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every string changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    return [_mapped(item, change) for item in value] if isinstance(value, list) else value
