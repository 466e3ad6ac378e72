"""How the clients of an API ask, and how they are answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pipeline.answer.answer import Answer, Generated
from pipeline.answer.delta import Delta
from pipeline.serve.asked import Asked
from pipeline.serve.errors import ApiError
from pipeline.serve.exchange import Exchange

Record = dict[str, Any]


class Chunks(Protocol):
    """Turns what the engine tells of one request into the events of a stream."""

    def first(self) -> Iterator[Record]:
        """Before all others."""

    def of(self, delta: Delta) -> Iterator[Record]: ...
    def last(self, answer: Generated) -> Iterator[Record]:
        """After all others."""


class Dialect(Protocol):
    """One API."""

    @property
    def done(self) -> bytes:
        """What ends a stream."""

    @property
    def ping(self) -> bytes:
        """What keeps one alive."""

    def read(self, body: bytes, defaults: Mapping[str, Any]) -> Asked:
        """defaults: request fields for what the body doesn't set. Raises RowError, which names the field."""

    def whole(self, exchange: Exchange, answer: Answer) -> Record:
        """The body of an answer that isn't streamed."""

    def chunks(self, exchange: Exchange) -> Chunks: ...
    def event(self, record: Record) -> bytes:
        """A record of `chunks`, as it is sent."""

    def failure(self, error: ApiError) -> bytes:
        """The event of a stream that fails."""
