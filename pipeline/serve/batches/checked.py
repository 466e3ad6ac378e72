"""A batch's input, looked at before any of it is run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.request.json_values import read_json, short

MOST_REQUESTS = 50_000
SHOWN = 100
"""The most problems that are told of one file."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Problem:
    """As OpenAI's API has it. line: counted from 1; None for the file as a whole."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Checked:
    """model: the one that all requests name. problems: the first of them; where there are any, nothing may be
    run."""

    requests: int
    model: str | None
    problems: tuple[Problem, ...]


def check(
    lines: Iterable[bytes],
    endpoint: Endpoint,
    served: Collection[str],
    most: int = MOST_REQUESTS,
) -> Checked:
    """lines: of the file. served: the names of the one model that is served. most: requests of a file."""
    checking = _Checking(endpoint, frozenset(served))
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(_BOM) if number == 1 else line
        if text.strip():
            checking.look(text, number)
        if checking.requests > most:
            reason = f"the file has more than {most:,} requests, the most that a batch may have"
            return Checked(checking.requests, None, (Problem("too_many_tasks", reason),))
    if not checking.requests:
        return Checked(0, None, (Problem("empty_file", "the file has no requests"),))
    return Checked(checking.requests, checking.model, tuple(checking.problems))


class _Checking:
    """What was found so far."""

    def __init__(self, endpoint: Endpoint, served: frozenset[str]) -> None:
        self.requests = 0
        self.model: str | None = None
        self.problems: list[Problem] = []
        self._endpoint = endpoint
        self._served = served
        self._lines: dict[str, int] = {}

    def look(self, text: bytes, line: int) -> None:
        self.requests += 1
        try:
            record = read_json(text, None)
        except RowError as error:
            self._found([Problem("invalid_json_line", error.message, None, line)])
            return
        if not isinstance(record, dict):
            reason = f"a line must be a JSON object, not {short(record)}"
            self._found([Problem("invalid_json_line", reason, None, line)])
            return
        self._found([*self._name(record, line), *self._url(record, line), *self._model(record, line)])

    def _found(self, problems: Iterable[Problem]) -> None:
        self.problems += problems
        del self.problems[SHOWN:]

    def _name(self, record: dict[str, Any], line: int) -> Iterator[Problem]:
        name = record.get("custom_id")
        if not isinstance(name, str) or not name:
            code = "invalid_custom_id" if name else "missing_required_parameter"
            yield Problem(code, "custom_id must be a string that isn't empty", "custom_id", line)
        elif first := self._lines.get(name):
            reason = f"the custom_id {short(name)} is that of line {first}, too"
            yield Problem("duplicate_custom_id", reason, "custom_id", line)
        else:
            self._lines[name] = line

    def _url(self, record: dict[str, Any], line: int) -> Iterator[Problem]:
        method, url = record.get("method"), record.get("url")
        if method != "POST":
            yield Problem("invalid_method", f"method must be POST, not {short(method)}", "method", line)
        if url != self._endpoint:
            reason = f"url must be the batch's endpoint, {self._endpoint}, not {short(url)}"
            yield Problem("url_mismatch", reason, "url", line)

    def _model(self, record: dict[str, Any], line: int) -> Iterator[Problem]:
        body = record.get("body")
        if not isinstance(body, dict):
            reason = f"body must be a JSON object, not {short(body)}"
            yield Problem("invalid_request", reason, "body", line)
            return
        asked = body.get("model")
        # What is no name at all is that request's own error.
        name = asked if isinstance(asked, str) else "local"
        model = "local" if name in self._served else name
        if self.model is None:
            self.model = model
        elif model != self.model:
            reason = f"the model {short(name)} is not that of the lines before: a batch has one model"
            yield Problem("model_mismatch", reason, "body.model", line)
