"""Chats and completions become answers, by continuous batching."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal

from pipeline.answer.answer import Answer
from pipeline.answer.answer_reader import AnswerReader
from pipeline.answer.answer_stream import AnswerStream
from pipeline.chat.chat_format import ChatFormats
from pipeline.chat.prompts import PromptBuilder
from pipeline.engine.model import Vocabulary
from pipeline.engine.priority import Deadlines, Priority
from pipeline.engine.runner import Runner
from pipeline.engine.sequence import Outcome
from pipeline.errors import RowError, WorkerError
from pipeline.pulse import Pulse
from pipeline.request.schema import ChatRequest, Request
from pipeline.respond.about import About
from pipeline.respond.ask import Ask, Generations, echoes
from pipeline.respond.handle import Handle, then
from pipeline.respond.preparation import GenerativePreparation
from pipeline.respond.responders import served
from pipeline.respond.service import Listen


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
        self._preparation = GenerativePreparation(
            vocabulary, self.formats, about.names, context=context, limit=limit
        )
        self._prompts = PromptBuilder(vocabulary, None, self.formats)
        self._reader = AnswerReader(about.digest, vocabulary=vocabulary, formats=self.formats)
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
        stream = listen and AnswerStream(self._reader, ask.request, name, listen, at_once=echoes(ask.request))
        submission = self._runner.submit(
            ask.sequences(self.vocabulary, self._deadlines, priority), stream.watch if stream else None
        )

        def answer(outcomes: list[Outcome]) -> Answer:
            return self._reader.read(ask.request, ask.generations(outcomes).choices, name)

        return Handle(then(submission.outcomes, answer), len(ask.tokens))

    def prepare(self, request: Request | RowError, name: str) -> Ask:
        """As `GenerativePreparation`."""
        return self._preparation.prepare(request, name)

    def prompt(self, request: ChatRequest) -> tuple[str, list[int]]:
        """As `Service`."""
        served(request, self.about.names)
        return self._prompts.written(request), self._prompts.build(request)

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

    @property
    def failure(self) -> WorkerError | None:
        return self._runner.failure

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
            interactive=engine.interactive,
            full_seconds=done.full_seconds,
            full_tokens=done.full_tokens,
            last_seconds=done.last_seconds,
            last_tokens=done.last_tokens,
            held_cells=done.held_cells,
        )

    def close(self) -> None:
        self._runner.close()
