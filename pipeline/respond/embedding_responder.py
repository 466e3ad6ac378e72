"""The embedding requests of a job's chunks become records."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Literal

from pipeline.answer.answer import Embedded
from pipeline.answer.answers import Answers
from pipeline.errors import RowError, WorkerError
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.respond.embedding_service import EmbeddingService, Texts
from pipeline.respond.responders import Record


class EmbeddingResponder:
    """The inputs of all rows of a chunk are packed into calls together."""

    kind: Literal["generate", "embed"] = "embed"

    def __init__(self, service: EmbeddingService, answers: Answers) -> None:
        self._service = service
        self._answers = answers
        self._begun: dict[int, Sequence[Texts]] = {}
        self._stopped = False

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        prepared = [self._prepare(row) for row in rows]
        texts = [texts for texts in prepared if isinstance(texts, Texts)]
        self._begun[id(texts)] = texts
        try:
            self._service.begin(texts)
            if self._stopped:
                self.stop()
            return [self._record(row, texts, attempts) for row, texts in zip(rows, prepared, strict=True)]
        except CancelledError:
            raise WorkerError("the job was stopped") from None
        finally:
            del self._begun[id(texts)]

    def stop(self) -> None:
        """Nobody wants any more answers: calls of which nothing is computed yet raise WorkerError. From any
        thread."""
        self._stopped = True
        for chunk in list(self._begun.values()):
            for texts in chunk:
                texts.result.cancel()

    def pulse(self) -> Pulse:
        return self._service.pulse()

    def close(self) -> None:
        self._service.close()

    def _prepare(self, row: Row) -> Texts | RowError:
        try:
            return self._service.prepare(row.request)
        except RowError as error:
            return error

    def _record(self, row: Row, texts: Texts | RowError, attempts: int) -> Record:
        if isinstance(texts, RowError):
            return self._answers.error(row.custom_id, texts, attempts)
        answer = texts.result.result()
        assert isinstance(answer, Embedded)
        return self._answers.embedding(row, answer, attempts)
