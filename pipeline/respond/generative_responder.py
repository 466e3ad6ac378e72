"""Chats and completions become answers, by continuous batching."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pipeline.answer.answers import Answers
from pipeline.constraint.constraints import constraint_of
from pipeline.constraint.guides import Guides
from pipeline.engine.model import Vocabulary
from pipeline.engine.runner import NewSequence, Runner
from pipeline.engine.sequence import Outcome
from pipeline.engine.sequence import Sequence as Generating
from pipeline.errors import RowError
from pipeline.pulse import Pulse
from pipeline.request.fields import UNLIMITED
from pipeline.request.rows import Row
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest
from pipeline.respond.ask import Answer, Ask, echoes, key_of
from pipeline.respond.responders import Record, served
from pipeline.respond.reuse import Claims, Elsewhere
from pipeline.text.chat_format import ChatFormats
from pipeline.text.pieces import Piece, Pieces
from pipeline.text.prompts import PromptBuilder

Result = Answer | RowError


@dataclass(frozen=True, slots=True)
class _Job:
    """A row, the answer to come, and whether this call has to give it."""

    row: Row
    key: bytes | None
    result: Future[Result]
    mine: bool


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of `respond`. known: the keys of the answers that another worker gave."""

    jobs: Sequence[_Job]
    attempts: int
    known: Mapping[bytes, Answer]


class GenerativeResponder:
    """Equal rows with one possible answer are computed once, rows that begin alike one after the other."""

    kind: Literal["generate", "embed"] = "generate"

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        answers: Answers,
        *,
        names: frozenset[str],
        context: int,
        limit: int | None = None,
        seconds: float,
        formats: ChatFormats | None = None,
        reuse: bool = True,
        elsewhere: Elsewhere[Answer] | None = None,
    ) -> None:
        """names: the model's names in requests. context: tokens. limit: of the model's own context, which
        max_tokens may not go beyond; `context` where unknown. seconds: a row's deadline.
        formats: chat templates instead of the model's own. reuse: of equal rows, compute one.
        elsewhere: what other workers of the job have answered."""
        self._runner = runner
        self._vocabulary = vocabulary
        self._formats = formats or ChatFormats.of_model(vocabulary)
        self._prompts = PromptBuilder(vocabulary, context, self._formats)
        self._pieces = Pieces(vocabulary)
        self._guides = Guides(vocabulary, self._formats)
        self._answers = answers
        self._names = names
        self._limit = limit or context
        self._seconds = seconds
        self._reuse = reuse
        self._elsewhere = elsewhere
        self._claims: Claims[Result] = Claims()
        self._calls: dict[int, _Call] = {}

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        jobs = [self._claim(row) for row in rows]
        mine = [job for job in jobs if job.mine]
        try:
            known = self._take_known(mine)
            self._calls[id(rows)] = _Call(jobs, attempts, known)
            self._compute([job for job in mine if job.key not in known])
            self._tell(job for job in mine if job.key not in known)
        except BaseException as failure:
            for job in jobs:
                if job.mine and not job.result.done():
                    self._claims.forget(job.key)
                    job.result.set_exception(failure)
            raise
        finally:
            call = self._calls.pop(id(rows), None)
        assert call
        return [self._record(job, call) for job in jobs]

    def answered(self, rows: Sequence[Row]) -> dict[int, Record]:
        call = self._calls.get(id(rows))
        jobs = enumerate(call.jobs if call else ())
        done = ((place, job) for place, job in jobs if job.result.done() and not job.result.exception())
        return {place: self._record(job, call) for place, job in done} if call else {}

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

    def _claim(self, row: Row) -> _Job:
        request, key = row.request, None
        if self._reuse and isinstance(request, ChatRequest | CompletionRequest):
            key = key_of(request)
        return _Job(row, key, *self._claims.claim(key))

    def _take_known(self, jobs: Iterable[_Job]) -> Mapping[bytes, Answer]:
        """Settles the jobs that another worker has answered."""
        keys = {job.key: job for job in jobs if job.key is not None}
        if not self._elsewhere:
            return {}
        found = self._elsewhere.look(list(keys))
        for key, answer in found.items():
            self._settle(keys[key], answer)
        return found

    def _tell(self, jobs: Iterable[_Job]) -> None:
        if self._elsewhere:
            results = {job.key: job.result.result() for job in jobs if job.key is not None}
            self._elsewhere.note({k: found for k, found in results.items() if isinstance(found, Answer)})

    def _compute(self, jobs: Iterable[_Job]) -> None:
        """Gives each job its result."""
        asks: list[tuple[_Job, Ask]] = []
        for job in jobs:
            try:
                asks.append((job, self._ask(job.row)))
            except RowError as error:
                self._settle(job, error)
        # Rows that begin alike come one after the other, so that the cells which they share are still there.
        asks.sort(key=lambda pair: pair[1].tokens)
        sequences = [self._settling(job, ask) for job, ask in asks]
        outcomes = iter(self._runner.run([new for own in sequences for new in own]))
        for (job, ask), own in zip(asks, sequences, strict=True):
            found = [next(outcomes) for _ in own]
            if not job.result.done():
                self._settle(job, ask.answer(found))

    def _settling(self, job: _Job, ask: Ask) -> list[NewSequence]:
        """What the row asks of the engine; its job is settled with the last of it, whatever the others do."""
        asked = ask.sequences(self._vocabulary, self._seconds)
        outcomes: list[Outcome | None] = [None] * len(asked)

        def new(place: int, make: NewSequence, on_finish: Callable[[Outcome], None]) -> Generating:
            def heard(outcome: Outcome) -> None:
                outcomes[place] = outcome
                found = [outcome for outcome in outcomes if outcome is not None]
                if len(found) == len(outcomes):
                    # This is the engine's thread. Whatever goes wrong here does so again on the caller's.
                    with suppress(Exception):
                        self._settle(job, ask.answer(found))
                on_finish(outcome)

            return make(heard)

        return [partial(new, place, make) for place, make in enumerate(asked)]

    def _settle(self, job: _Job, result: Result) -> None:
        if isinstance(result, RowError):  # Another try may fare better.
            self._claims.forget(job.key)
        else:
            self._claims.keep(job.key, result.size)
        job.result.set_result(result)

    def _ask(self, row: Row) -> Ask:
        """Raises RowError."""
        request = served(row.request, self._names)
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
        return Ask(row.custom_id, request, tokens, self._piece(request), guide)

    def _piece(self, request: ChatRequest | CompletionRequest) -> Piece:
        if not isinstance(request, ChatRequest):
            return self._vocabulary.piece
        return self._pieces.showing(self._formats.of(request).marks(tools=bool(request.offered)))

    def _check_length(self, request: ChatRequest | CompletionRequest) -> None:
        """The default may be more than a small context holds; what a row asks for may not."""
        if self._limit < request.max_tokens < UNLIMITED and "max_tokens" in request.model_fields_set:
            reason = f"max_tokens must be an integer from 1 to {self._limit}, the model's context limit"
            raise RowError("invalid_request", f"{reason}, not {request.max_tokens}", "max_tokens")

    def _record(self, job: _Job, call: _Call) -> Record:
        row, result, attempts = job.row, job.result.result(), call.attempts
        reused = not job.mine or job.key in call.known
        if isinstance(result, RowError):
            return self._answers.error(row.custom_id, result, attempts)
        write = self._answers.chat if isinstance(row.request, ChatRequest) else self._answers.completion
        return write(row, result.choices, attempts, reused=reused)
