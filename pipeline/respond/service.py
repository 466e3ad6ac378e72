"""One request to one answer, for whoever asks: the responders of a job, and a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from pipeline.answer.answer import Answer
from pipeline.answer.delta import Delta
from pipeline.engine.model import Vocabulary
from pipeline.engine.priority import Priority
from pipeline.errors import WorkerError
from pipeline.pulse import Pulse
from pipeline.request.schema import ChatRequest, Request
from pipeline.respond.about import About
from pipeline.respond.handle import Handle

Listen = Callable[[Sequence[Delta]], None]
"""Takes what a step added to an answer. Called on the engine's thread: it must be quick and never wait."""


class Service(Protocol):
    """Answers requests to one model. Safe for several threads. vocabulary: to tokenise with."""

    kind: Literal["generate", "embed"]
    about: About

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def context(self) -> int:
        """The most tokens of a request and its answer, or of an input to embed."""

    def ask(
        self,
        request: Request,
        name: str,
        *,
        listen: Listen | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Handle[Answer]:
        """Begins to answer a request.

        name: the request's own; it makes the ids of calls, and the seed where the request has none.
        listen: gets the answer's deltas, at most once a step, all before the result is set.
        Raises RowError where the request can't be served, before anything is computed, and WorkerError where
        the engine is broken or closed."""

    def prompt(self, request: ChatRequest) -> tuple[str, list[int]]:
        """What a chat's template makes of it, as text and as tokens, however long. Raises RowError."""

    @property
    def failure(self) -> WorkerError | None:
        """Why the engine is broken, for good; None while it isn't."""

    def pulse(self) -> Pulse: ...
    def close(self) -> None: ...
