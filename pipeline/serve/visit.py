"""One HTTP request, as the log and the headers tell of it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import cast

from starlette.types import Scope

from pipeline.serve.exchange import Exchange

NOBODY = "-"
"""The owner of a request where no keys are asked for."""


@dataclass(slots=True)
class Visit:
    """owner: the name of the client's key. status: of the answer; 0 where the client left before it.
    exchange: what was asked of the engine, if anything."""

    id: str = field(default_factory=lambda: f"req_{uuid.uuid4().hex}")
    owner: str = NOBODY
    status: int = 0
    exchange: Exchange | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def milliseconds(self) -> int:
        return int((time.monotonic() - self.started) * 1000)

    def line(self, method: str, path: str) -> str:
        """For the log. What was asked and answered is not in it."""
        usage = self.exchange.usage if self.exchange else None
        tokens = f" prompt={usage.prompt_tokens} completion={usage.completion_tokens}" if usage else ""
        head = f"{method} {path} {self.status or 'left'} {self.milliseconds} ms"
        return f"{head} id={self.id} key={self.owner}{tokens}"


def visit_of(scope: Scope) -> Visit:
    return cast(Visit, scope["visit"])
