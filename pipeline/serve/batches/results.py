"""What a batch leaves: a file of answers, and one of errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.input.jsonl import lines
from pipeline.output.committed import CommittedRows
from pipeline.output.export import Which, result_lines, unanswered_line
from pipeline.serve.batches.batch import Batch, Outcome, usage_of
from pipeline.serve.batches.batch_store import Place
from pipeline.serve.batches.file_store import FileStore
from pipeline.serve.batches.ids import FILE, derived_id
from pipeline.tally import Tally

_ROWS = 1024
_NEVER_RUN: Mapping[Outcome | None, tuple[str, str]] = {
    "expired": ("batch_expired", "this request was not run before the batch expired"),
    "cancelled": ("batch_cancelled", "this request was not run before the batch was cancelled"),
}


@dataclass(frozen=True, slots=True)
class Results:
    """Of a batch whose ending is decided. Its input and what is committed of its job are there still."""

    data: Storage
    place: Place
    batch: Batch

    def write(self) -> dict[str, Any]:
        """Writes both files, each where it has a line, once; what the batch's last mark says of them.

        Raises StorageError, and OutputError where an answer is damaged."""
        answers = self._answers()
        done = _tally(answers) if answers else Tally()
        return {
            "completed": done.succeeded,
            "failed": done.failed,
            "usage": usage_of(done),
            "output_file_id": self._write("output", lambda: self._of(answers, "succeeded")),
            "error_file_id": self._write(
                "error", lambda: chain(self._of(answers, "failed"), self._rest(answers))
            ),
        }

    def _answers(self) -> CommittedRows | None:
        """Those of the job with the most rows, where a service with other settings began another one."""
        start = f"{self.place.out}/"
        folders = {name.removeprefix(start).partition("/")[0] for name in self.data.list(self.place.out)}
        found = []
        for folder in sorted(folders):
            with suppress(OutputError):
                found.append(CommittedRows.at(f"{self.data.url}/{start}{folder}"))
        return max(found, key=lambda answers: _tally(answers).rows, default=None)

    def _write(self, kind: str, content: Callable[[], Iterator[bytes]]) -> str | None:
        """The file's id; None where it would be empty."""
        if next(content(), None) is None:
            return None
        at, asked = (self.batch.ending or {})["at"], self.batch.request
        id = derived_id(FILE, at, f"{asked.id} {kind}")

        def write(file: BinaryIO) -> None:
            file.writelines(content())

        files = FileStore(self.data, self.place.folder)
        files.add(id, f"{asked.id}_{kind}.jsonl", "batch_output", write, at=at, keep=asked.keep)
        return id

    def _of(self, answers: CommittedRows | None, which: Which) -> Iterator[bytes]:
        return (line for line, _ in result_lines(answers, which)) if answers else iter(())

    def _rest(self, answers: CommittedRows | None) -> Iterator[bytes]:
        """A line for each request that was never run."""
        outcome = self.batch.outcome
        if outcome not in _NEVER_RUN or not self.batch.validated:
            return
        code, message = _NEVER_RUN[outcome]
        answered = _numbers(answers) if answers else iter(())
        next_answered = next(answered, None)
        for number, name in enumerate(self._names()):
            if number == next_answered:
                next_answered = next(answered, None)
            else:
                yield unanswered_line(name, f"{self.place.id}\0{number}", code, message)

    def _names(self) -> Iterator[str]:
        with self.data.open_input(self.place.input) as file:
            for _, line in lines(file, 0):
                yield json.loads(line)["custom_id"]


def _numbers(answers: CommittedRows) -> Iterator[int]:
    """Of the rows that have an answer, in order."""
    for shard in answers.shards:
        for start, table in answers.tables(shard, lambda schema: ["custom_id"], _ROWS):
            yield from range(start, start + table.num_rows)


def _tally(answers: CommittedRows) -> Tally:
    manifest = answers.manifest
    finished = manifest.finished_shards()
    parts = (
        [finished[shard]] if shard in finished else manifest.finished_chunks(shard).values()
        for shard in answers.shards
    )
    return sum(chain.from_iterable(parts), Tally())
