"""What the routes share: the service behind them, and whether it takes requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.config import ServeConfig
from pipeline.errors import WorkerError
from pipeline.pulse import Pulse
from pipeline.respond.service import Service
from pipeline.serve.asked import Asked
from pipeline.serve.errors import ApiError, unavailable
from pipeline.serve.exchange import Exchange
from pipeline.serve.keys import Owners
from pipeline.serve.mailbox import Mailbox
from pipeline.serve.metrics import Metrics

State = Literal["loading", "open", "draining", "broken"]
_SHUT: Mapping[State, str] = {
    "loading": "the model is being loaded",
    "draining": "the service is about to stop",
    "broken": "the engine is broken, and the service is about to stop",
}
FULL_SECONDS = 2
"""When to try again where the queue is full."""


@dataclass
class Door:
    """keys: None where everybody may ask. defaults: request fields for those that a body doesn't set."""

    config: ServeConfig = field(default_factory=ServeConfig)
    keys: Owners | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    state: State = "loading"

    def __post_init__(self) -> None:
        self.metrics = Metrics(self._beat)
        self.created = int(time.time())
        self.under_way: set[Exchange] = set()
        self._service: Service | None = None
        self._mailbox: Mailbox | None = None

    @property
    def service(self) -> Service:
        """Raises ApiError (503) where it can't be asked."""
        state = self.now
        if self._service is None or state != "open":
            raise unavailable(_SHUT.get(state, _SHUT["loading"]))
        return self._service

    @property
    def failure(self) -> WorkerError | None:
        """Why the engine is broken; None while it isn't."""
        return self._service.failure if self._service else None

    @property
    def now(self) -> State:
        """The state, as the engine sees it, too."""
        return "broken" if self.failure else self.state

    @property
    def reason(self) -> str:
        """Why requests are not answered now; "" where they are."""
        return str(self.failure) if self.failure else _SHUT.get(self.state, "")

    def open(self, service: Service) -> None:
        """From now on, requests are answered."""
        self._service = service
        self.state = "open"

    async def begin(self, read: Callable[[], Asked], owner: str) -> Exchange:
        """Reads, checks and admits a request, and begins to answer it.

        Raises RowError and ApiError for one that isn't. read: gives what is asked, or raises RowError.
        owner: the name of the client's key.
        """
        loop = asyncio.get_running_loop()
        if self._mailbox is None:
            self._mailbox = Mailbox(loop)
        exchange = Exchange(self._mailbox, self.metrics, owner)
        # Long texts and grammars take a while: the loop must not wait for them.
        begun = loop.run_in_executor(None, self._ask, exchange, read)
        try:
            await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(lambda _: exchange.close())
            raise
        self.under_way.add(exchange)
        return exchange

    def end(self, exchange: Exchange) -> None:
        """Nobody waits for it any more."""
        self.under_way.discard(exchange)
        exchange.close()

    def turn_away(self) -> None:
        """Ends what is still under way with an error that tells clients to ask again."""
        for exchange in list(self.under_way):
            exchange.fail(unavailable(_SHUT["draining"]))

    def _ask(self, exchange: Exchange, read: Callable[[], Asked]) -> None:
        asked = read()
        service = self.service
        if service.pulse().interactive >= self.config.queue:
            raise ApiError(
                429,
                f"{self.config.queue} requests wait already: try again in a moment",
                type="rate_limit_error",
                code="rate_limit_exceeded",
                headers={"retry-after": str(FULL_SECONDS)},
            )
        exchange.begin(service, asked)

    def _beat(self) -> tuple[str, Pulse] | None:
        return (self._service.about.model, self._service.pulse()) if self._service else None
