"""A chunk under way: its rows are answered, some of them again, and drafts are kept meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from pipeline.errors import WorkerError
from pipeline.input.shards import Chunk
from pipeline.output.drafts import Drafts
from pipeline.request.rows import Row
from pipeline.respond.responders import Record, Responder, Telling

# Errors that are not the row's alone: a busy machine may be why.
_PASSING = {"server_error", "deadline_exceeded"}

Write = Callable[[Sequence[int], Sequence[Record]], pa.Table]
"""The answers to those rows of the chunk (counted from 0), as the output has them."""


class UnderWay:
    """A chunk of which not every row is answered yet. `save` may be called from other threads."""

    def __init__(
        self,
        chunk: Chunk,
        retry: int,
        rows: Sequence[Row],
        responder: Responder,
        attempts: int,
        known: Mapping[int, Record] | None = None,
    ) -> None:
        """retry: the number of the retry that the chunk is part of. attempts: that a row has at most.
        known: the answers to rows, by their places, that nothing is computed for."""
        self._chunk, self._retry = chunk, retry
        self._rows, self._responder, self._attempts = rows, responder, attempts
        self._answers: dict[int, Record] = dict(known or {})
        self._asked: tuple[Sequence[Row], Sequence[int], int] = ((), (), 0)
        self._saved = 0
        self._over = False

    def answer(self, attempt: int) -> list[Record]:
        """The answers to all rows. Those whose error may pass are tried again, with fewer neighbours.

        attempt: how often the rows have been tried, this time included. Raises WorkerError.
        """
        places: Sequence[int] = [place for place in range(len(self._rows)) if place not in self._answers]
        while places:
            asked = [self._rows[place] for place in places]
            self._asked = asked, places, attempt
            answers = self._respond(asked, attempt)
            self._answers |= dict(zip(places, answers, strict=True))
            places = [place for place in places if self._is_open(self._answers[place], attempt)]
            attempt += 1
        self._asked = (), (), attempt  # Until the commit, a draft has all of them.
        return [self._answers[place] for place in range(len(self._rows))]

    def save(self, drafts: Drafts, write: Write) -> None:
        """Keeps a draft of what is answered, where that is more than at the last time."""
        answers = self._so_far()
        if self._over or len(answers) <= self._saved:
            return
        self._saved, places = len(answers), sorted(answers)
        table = write(places, [answers[place] for place in places])
        drafts.keep(self._chunk, [self._chunk.start + place for place in places], table, self._retry)
        if self._over:
            drafts.drop(self._chunk, self._retry)

    def end(self, drafts: Drafts) -> None:
        """The chunk is committed: it needs no draft any more."""
        self._over = True
        if self._saved:
            drafts.drop(self._chunk, self._retry)

    def _so_far(self) -> dict[int, Record]:
        """The answers that stay as they are, by the places of their rows."""
        asked, places, attempt = self._asked
        found = {place: answer for place, answer in list(self._answers.items()) if place not in places}
        if isinstance(self._responder, Telling):
            told = self._responder.answered(asked)
            found |= {places[at]: a for at, a in told.items() if not self._is_open(a, attempt)}
        return found

    def _respond(self, rows: Sequence[Row], attempt: int) -> list[Record]:
        answers = self._responder.respond(rows, attempt)
        if [row.custom_id for row in rows] != [answer["custom_id"] for answer in answers]:
            raise WorkerError(f"{len(rows)} rows went in, and {len(answers)} other answers came out")
        return answers

    def _is_open(self, answer: Record, attempt: int) -> bool:
        error = answer.get("error") or {}
        return error.get("code") in _PASSING and attempt < self._attempts
