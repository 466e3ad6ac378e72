"""What answers rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from pipeline.errors import RowError
from pipeline.pulse import Pulse
from pipeline.request.rows import Row
from pipeline.request.schema import Request

Record = dict[str, Any]


class Responder(Protocol):
    """Answers rows. `respond` may be called from several threads at once."""

    kind: Literal["generate", "embed"]

    def respond(self, rows: Sequence[Row], attempts: int) -> list[Record]:
        """One record for each row, in order. Raises WorkerError where the model broke.

        attempts: how often the rows were tried, this time included; 0 where they only prove the worker."""

    def pulse(self) -> Pulse: ...
    def close(self) -> None: ...


@runtime_checkable
class Telling(Protocol):
    """A responder that tells answers before all rows of a call have theirs."""

    def answered(self, rows: Sequence[Row]) -> dict[int, Record]:
        """Of a call of `respond` that is under way with these very `rows`: the records there are, by place.

        For any thread."""


def served(request: Request | RowError, names: frozenset[str]) -> Request:
    """The request, if it is one to a model of these names. Raises RowError (model_not_found)."""
    if isinstance(request, RowError):
        raise request
    if request.model not in names:
        served = ", ".join(f'"{name}"' for name in sorted(names))
        raise RowError(
            "model_not_found", f'the model "{request.model}" is not served; served: {served}', "model"
        )
    return request
