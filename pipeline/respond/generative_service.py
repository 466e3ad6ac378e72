"""Chats and completions become answers, by continuous batching."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

from pipeline.answer.answer import Answer
from pipeline.answer.answer_reader import AnswerReader
from pipeline.answer.delta import whole_deltas
from pipeline.constraint.constraints import constraint_of
from pipeline.constraint.guides import Guides
from pipeline.engine.model import Vocabulary
from pipeline.engine.priority import Deadlines, Priority
from pipeline.engine.runner import Runner
from pipeline.engine.sequence import Outcome
from pipeline.errors import RowError
from pipeline.pulse import Pulse
from pipeline.request.fields import UNLIMITED
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest, Request
from pipeline.respond.about import About
from pipeline.respond.ask import Ask, Generations, echoes
from pipeline.respond.handle import Handle, then
from pipeline.respond.responders import served
from pipeline.respond.service import Listen
from pipeline.text.chat_format import ChatFormats
from pipeline.text.pieces import Piece, Pieces
from pipeline.text.prompts import PromptBuilder


class GenerativeService:
    """Answers to one model's chats and completions."""

    kind: Literal["generate", "embed"] = "generate"

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        about: About = About(),  # noqa: B008, it is frozen
        *,
        context: int,
        limit: int | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008, it is frozen
        formats: ChatFormats | None = None,
    ) -> None:
        """context: tokens. limit: of the model's own context, which
        max_tokens may not go beyond; `context` where unknown. deadlines: of each request.
        formats: chat templates instead of the model's own."""
        self.about = about
        self.vocabulary = vocabulary
        self.context = context
        self.formats = formats or ChatFormats.of_model(vocabulary)
        self._runner = runner
        self._prompts = PromptBuilder(vocabulary, context, self.formats)
        self._pieces = Pieces(vocabulary)
        self._guides = Guides(vocabulary, self.formats)
        self._reader = AnswerReader(about.digest, vocabulary=vocabulary, formats=self.formats)
        self._limit = limit or context
        self._deadlines = deadlines

    def ask(
        self,
        request: Request,
        name: str,
        *,
        listen: Listen | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> Handle[Answer]:
        """As `Service`."""
        ask = self.prepare(request, name)
        submission = self._runner.submit(ask.sequences(self.vocabulary, self._deadlines, priority))

        def answer(outcomes: list[Outcome]) -> Answer:
            found = self._reader.read(ask.request, ask.generations(outcomes).choices, name)
            if listen:
                listen(whole_deltas(found))
            return found

        return Handle(then(submission.outcomes, answer))

    def prepare(self, request: Request | RowError, name: str) -> Ask:
        """What the request asks of the engine. Raises RowError where it can't be served."""
        request = served(request, self.about.names)
        if isinstance(request, EmbeddingRequest):
            raise RowError(
                "invalid_request",
                "the model generates text and gives no embeddings: use an embedding model",
            )
        self._check_length(request)
        tokens = self._prompts.build(request)
        constraint = constraint_of(request)
        heals = not echoes(request)
        guide = self._guides.guide(constraint, tokens, heals=heals) if constraint else None
        return Ask(name, request, tokens, self._piece(request), guide)

    def begin(self, asks: Sequence[Ask]) -> list[Future[Generations]]:
        """Begins to compute a job's requests, which queue as one, in order. What is raised is as in `Handle`,
        and the rest as in `Service`."""
        submissions = self._runner.submit_all(
            [ask.sequences(self.vocabulary, self._deadlines) for ask in asks]
        )
        return [
            then(submission.outcomes, ask.generations)
            for ask, submission in zip(asks, submissions, strict=True)
        ]

    def pulse(self) -> Pulse:
        engine = self._runner.engine
        done = engine.counters
        return Pulse(
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            cached_tokens=done.cached_tokens,
            rows=done.rows,
            running=engine.running,
            waiting=engine.waiting,
        )

    def close(self) -> None:
        self._runner.close()

    def _piece(self, request: ChatRequest | CompletionRequest) -> Piece:
        if not isinstance(request, ChatRequest):
            return self.vocabulary.piece
        return self._pieces.showing(self.formats.of(request).marks(tools=bool(request.offered)))

    def _check_length(self, request: ChatRequest | CompletionRequest) -> None:
        """The default may be more than a small context holds; what a row asks for may not."""
        if self._limit < request.max_tokens < UNLIMITED and "max_tokens" in request.model_fields_set:
            reason = f"max_tokens must be an integer from 1 to {self._limit}, the model's context limit"
            raise RowError("invalid_request", f"{reason}, not {request.max_tokens}", "max_tokens")
