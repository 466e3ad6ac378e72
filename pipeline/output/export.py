"""A job's answers as files of OpenAI's batch results."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.answer.answer_columns import response_schema
from pipeline.answer.openai_body import to_openai
from pipeline.answer.vector_forms import with_floats
from pipeline.errors import ConfigError
from pipeline.files.storage import Storage
from pipeline.output.answered_ids import skipped
from pipeline.output.committed import CommittedRows
from pipeline.output.records import WORK

STANDARD_OUTPUT = "-"

_ROWS = 64
_UNFINISHED = "nightherd run ends it, and --partial exports what it has committed so far"
_NOTHING = pa.schema([])
_COLUMNS = {
    *response_schema("generate", _NOTHING).names,
    *response_schema("embed", _NOTHING, vectors="int8").names,
}
# No server gives these for an answer: the request never came back.
_OUTSIDE_HTTP = {"worker_crashed", "deadline_exceeded"}
# Beside "\n", these end a line for Python's splitlines, and so for clients of the Batch API.
_LINE_BREAKS = re.compile("[\x85\u2028\u2029]")

Which = Literal["all", "succeeded", "failed"]
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """lines: of the results' file, or of both; failed: rows with an error; rows: of the whole job."""

    lines: int
    failed: int
    rows: int


def export(
    output_url: str,
    file: str,
    errors: str | None = None,
    *,
    partial: bool = False,
    tell: Tell = lambda lines, rows: None,
) -> Exported:
    """Writes one line for each row, in the input's order over the shards in the order of their names.

    Rows that were skipped have none: their answers are in another output.

    file: a path, a fsspec URL or "-" for standard output; complete or absent at every moment, but for
    standard output. errors: where failed rows go instead. partial: also for a job that isn't finished,
    what it has committed. tell: called with the lines so far, and all rows of the job.
    Raises OutputError where there is no such job, or an answer is missing; ConfigError for a bad target.
    """
    _check_targets(file, errors)
    answers = CommittedRows.at(output_url, None if partial else _UNFINISHED)
    if errors is None:
        return _write(file, answers, "all", tell)
    results, failures = _write(file, answers, "succeeded", tell), _write(errors, answers, "failed", tell)
    return Exported(results.lines + failures.lines, failures.lines, results.rows)


def result_lines(answers: CommittedRows, which: Which) -> Iterator[tuple[bytes, bool]]:
    """Result lines, and whether each is of a failed row."""
    for shard in sorted(answers.shards):
        for start, table in answers.tables(shard, _own, _ROWS):
            numbers = _numbers(table, which)
            chosen = table.take(numbers)
            if "embedding" in chosen.column_names:
                chosen = with_floats(chosen)
            for number, record in zip(numbers.to_pylist(), chosen.to_pylist(), strict=True):
                yield _line(record, _place_of(answers, shard, start + number)), record["error"] is not None


def unanswered_line(custom_id: str, place: str, code: str, message: str) -> bytes:
    """A result line of a row that has no answer.

    place: of the row, different from all others'. code, message: why there is no answer."""
    names = {"id": f"batch_req_{_digest(place)}", "custom_id": custom_id}
    return _text(names | {"response": None, "error": {"code": code, "message": message}})


def _check_targets(file: str, errors: str | None) -> None:
    for name, target in (("FILE", file), ("--errors", errors)):
        if target is not None and (not target.rpartition("/")[2] or Path(target).is_dir()):
            raise ConfigError(f"{name} {target!r}: expected a file's path or URL, or - for standard output")
    if errors is not None and _place(file) == _place(errors):
        raise ConfigError(f"--errors {errors!r}: expected another file than that of the results")


def _place(target: str) -> str:
    """The same for two names of one file."""
    return target if "://" in target or target == STANDARD_OUTPUT else str(Path(target).resolve())


def _write(target: str, answers: CommittedRows, which: Which, tell: Tell) -> Exported:
    done = Exported(0, 0, answers.rows)

    def write(file: BinaryIO) -> None:
        nonlocal done
        lines = failed = 0
        for line, is_failed in result_lines(answers, which):
            file.write(line)
            lines, failed = lines + 1, failed + is_failed
            tell(lines, answers.rows)
        done = Exported(lines, failed, answers.rows)

    if target == STANDARD_OUTPUT:
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        folder, name = Storage.around(target if "://" in target else str(Path(target).absolute()))
        folder.overwrite(name, write)
        folder.remove_empty(WORK)
    return done


def _own(schema: pa.Schema) -> list[str]:
    """The columns that aren't carried along from the input."""
    return [name for name in schema.names if name in _COLUMNS]


def _numbers(table: pa.Table, which: Which) -> pa.Array:
    """The rows of a table that are asked for, by their place in it."""
    good, own = pc.equal(table.column("status_code"), 200), pc.invert(skipped(table))
    mask = {"all": own, "succeeded": good, "failed": pc.and_(pc.invert(good), own)}[which]
    return pc.indices_nonzero(mask)


def _line(record: Mapping[str, Any], place: str) -> bytes:
    """A line of a result file. The same row of the same job has the same ids each time."""
    error = record["error"]
    if error is not None and error["code"] in _OUTSIDE_HTTP:
        return unanswered_line(record["custom_id"], place, error["code"], error["message"])
    digest = _digest(place)
    response = {
        "status_code": record["status_code"],
        "request_id": f"req_{digest}",
        "body": to_openai(record),
    }
    names = {"id": f"batch_req_{digest}", "custom_id": record["custom_id"]}
    return _text(names | {"response": response, "error": None})


def _place_of(answers: CommittedRows, shard: str, number: int) -> str:
    prints = answers.manifest.fingerprint
    return f"{prints.digest}\0{prints.source(shard)}\0{shard}\0{number}"


def _digest(place: str) -> str:
    return blake2b(place.encode(), digest_size=12).hexdigest()


def _text(line: Mapping[str, Any]) -> bytes:
    text = json.dumps(line, ensure_ascii=False)
    return (_LINE_BREAKS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n").encode()
