"""A batch: what was asked, what has become of it, and what its client is told of that."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.config import Endpoint
from pipeline.serve.batches.marks import Record
from pipeline.tally import Tally

Outcome = Literal["completed", "failed", "expired", "cancelled"]
Status = Literal["validating", "in_progress", "finalizing", "cancelling"] | Outcome


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What a client asked for.

    owner: the name of its key. created_at, expires_at: seconds since 1970. completion_window: as it was
    asked for. keep: seconds until the files with its results expire; None for ever.
    """

    id: str
    owner: str
    endpoint: Endpoint
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: dict[str, str] | None = None
    keep: int | None = None

    @property
    def record(self) -> Record:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Batch:
    """The status follows from which marks are there.

    validated: its input was read: at, total (its requests), model (the id of the one that answers).
    ending: how it will end, decided once and for all: outcome, at; completed, failed of a complete one.
    finished: all is written: at, completed, failed, usage, output_file_id, error_file_id, errors.
    done: what is committed so far, of one under way.
    """

    request: BatchRequest
    validated: Record | None = None
    ending: Record | None = None
    finished: Record | None = None
    done: Tally = field(default_factory=Tally)

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def outcome(self) -> Outcome | None:
        """How it will end, once that is decided."""
        found: Outcome | None = self.ending["outcome"] if self.ending else None
        return found

    @property
    def status(self) -> Status:
        if self.finished and self.outcome:
            return self.outcome
        if self.outcome == "cancelled":
            return "cancelling"
        if self.outcome in ("completed", "expired"):
            return "finalizing"
        return "in_progress" if self.validated else "validating"

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's API has it."""
        asked, finished = self.request, self.finished or {}
        validated = self.validated or {}
        errors = finished.get("errors")
        return {
            "id": asked.id,
            "object": "batch",
            "endpoint": asked.endpoint,
            "model": validated.get("model"),
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": asked.input_file_id,
            "completion_window": asked.completion_window,
            "status": self.status,
            "output_file_id": finished.get("output_file_id"),
            "error_file_id": finished.get("error_file_id"),
            **self._times(),
            "request_counts": self._counts(validated.get("total", 0)),
            "usage": finished.get("usage"),
            "metadata": asked.metadata,
        }

    def _times(self) -> dict[str, int | None]:
        asked, ending, outcome = self.request, self.ending or {}, self.outcome
        at, finished_at = ending.get("at"), (self.finished or {}).get("at")
        return {
            "created_at": asked.created_at,
            "expires_at": asked.expires_at,
            "in_progress_at": (self.validated or {}).get("at"),
            "finalizing_at": at if outcome in ("completed", "expired") else None,
            "cancelling_at": at if outcome == "cancelled" else None,
            **{f"{name}_at": finished_at if name == outcome else None for name in _OUTCOMES},
        }

    def _counts(self, total: int) -> dict[str, int]:
        """Requests that were never run are neither completed nor failed."""
        counts = {"completed": self.done.succeeded, "failed": self.done.failed}
        for mark in (self.ending, self.finished):
            counts |= {name: mark[name] for name in counts if mark and name in mark}
        return {"total": total} | counts


_OUTCOMES: tuple[Outcome, ...] = ("completed", "failed", "expired", "cancelled")


def usage_of(tally: Tally) -> dict[str, Any]:
    """As OpenAI's API has it. Tokens of reasoning are not counted apart: they are among the output's."""
    return {
        "input_tokens": tally.prompt_tokens,
        "input_tokens_details": {"cached_tokens": tally.cached_tokens},
        "output_tokens": tally.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tally.total_tokens,
    }
