"""The answer to one request. Columns, bodies and the deltas of a stream are projections of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.sampling.deciding import Decision

Logprobs = Mapping[str, Any]
"""Log-probabilities in the shape of the request's endpoint; see `LogprobWriter`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """cached_tokens: those of the prompt that were not computed for this request."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Choice:
    """content: None where there is nothing but calls. finish_reason: "stop", "length" or "tool_calls".
    logprobs: None where they were not asked for. stop: the stop string that ended it."""

    content: str | None
    finish_reason: str
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()
    logprobs: Logprobs | None = None
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """The answer to a chat or a completion.

    choices: one for each of the `n` that were asked for.
    echo: the prompt's text, that stands before each choice's content where a completion asked for it.
    complete: whether every choice is whole by the request's constraint; None where it has none.
    decisions: the labels that the first choice was made of.
    seconds: from the request's slot to the last token; None where nothing was computed. prompt_seconds: of
    them, those to the first token.
    reused: the answer was computed for an earlier, equal request.
    """

    choices: tuple[Choice, ...]
    usage: Usage
    echo: str = ""
    complete: bool | None = None
    decisions: tuple[Decision, ...] = ()
    seconds: float | None = None
    prompt_seconds: float = 0.0
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer to a request for embeddings: float32 vectors, shape [inputs, dimensions], in the inputs'
    order."""

    vectors: NDArray[np.float32]
    usage: Usage


Answer = Generated | Embedded
