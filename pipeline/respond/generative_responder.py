"""The chats and completions of a job's chunks become records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pipeline.answer.answers import Answers
from pipeline.errors import RowError, WorkerError
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.request.schema import ChatRequest, CompletionRequest
from pipeline.respond.ask import Ask, Generations, key_of
from pipeline.respond.generative_service import GenerativeService
from pipeline.respond.responders import Record
from pipeline.respond.reuse import Claims, Elsewhere

Result = Generations | RowError


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
    known: Mapping[bytes, Generations]


class GenerativeResponder:
    """Equal rows with one possible answer are computed once, rows that begin alike one after the other."""

    kind: Literal["generate", "embed"] = "generate"

    def __init__(
        self,
        service: GenerativeService,
        answers: Answers,
        *,
        reuse: bool = True,
        elsewhere: Elsewhere[Generations] | None = None,
    ) -> None:
        """reuse: of equal rows, compute one. elsewhere: what other workers of the job have answered."""
        self._service = service
        self._answers = answers
        self._reuse = reuse
        self._elsewhere = elsewhere
        self._claims: Claims[Result] = Claims()
        self._calls: dict[int, _Call] = {}
        self._begun: set[Future[Generations]] = set()
        self._stopped = False

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
                    self._abandon(job, failure)
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

    def stop(self) -> None:
        """Nobody wants any more answers: calls under way raise WorkerError, and what they take up is free
        after the engine's next step. From any thread."""
        self._stopped = True
        for generations in list(self._begun):
            generations.cancel()

    def pulse(self) -> Pulse:
        return self._service.pulse()

    def close(self) -> None:
        self._service.close()

    def _claim(self, row: Row) -> _Job:
        request, key = row.request, None
        if self._reuse and isinstance(request, ChatRequest | CompletionRequest):
            key = key_of(request)
        return _Job(row, key, *self._claims.claim(key))

    def _take_known(self, jobs: Iterable[_Job]) -> Mapping[bytes, Generations]:
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
            self._elsewhere.note({k: found for k, found in results.items() if isinstance(found, Generations)})

    def _compute(self, jobs: Iterable[_Job]) -> None:
        """Gives each job its result."""
        asks: list[tuple[_Job, Ask]] = []
        for job in jobs:
            try:
                asks.append((job, self._service.prepare(job.row.request, job.row.custom_id)))
            except RowError as error:
                self._settle(job, error)
        # Rows that begin alike come one after the other, so that the cells which they share are still there.
        asks.sort(key=lambda pair: pair[1].tokens)
        begun = self._service.begin([ask for _, ask in asks])
        self._begun.update(begun)
        for (job, _), generations in zip(asks, begun, strict=True):
            generations.add_done_callback(partial(self._take, job))
        if self._stopped:
            self.stop()
        wait([job.result for job, _ in asks])
        for job, _ in asks:
            job.result.result()

    def _take(self, job: _Job, generations: Future[Generations]) -> None:
        """A job is settled with the last of its choices, whatever the others of the call do."""
        self._begun.discard(generations)
        if generations.cancelled():
            self._abandon(job, WorkerError("the job was stopped"))
            return
        failure = generations.exception()
        if failure is None:
            self._settle(job, generations.result())
        elif isinstance(failure, RowError):
            self._settle(job, failure)
        else:
            self._abandon(job, failure)

    def _abandon(self, job: _Job, failure: BaseException) -> None:
        self._claims.forget(job.key)
        job.result.set_exception(failure)

    def _settle(self, job: _Job, result: Result) -> None:
        if isinstance(result, RowError):  # Another try may fare better.
            self._claims.forget(job.key)
        else:
            self._claims.keep(job.key, result.size)
        job.result.set_result(result)

    def _record(self, job: _Job, call: _Call) -> Record:
        row, result, attempts = job.row, job.result.result(), call.attempts
        reused = not job.mine or job.key in call.known
        if isinstance(result, RowError):
            return self._answers.error(row.custom_id, result, attempts)
        write = self._answers.chat if isinstance(row.request, ChatRequest) else self._answers.completion
        return write(row, result.choices, attempts, reused=reused)
