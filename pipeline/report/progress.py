"""What people see of a job while it runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.status import Status

from pipeline.pulse import Pulse

WINDOW = 15.0
"""Seconds that rates are taken over."""
LINE_EVERY = 5.0
COUNT_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second, over the last WINDOW seconds."""

    rows: float = 0.0
    tokens_in: float = 0.0
    tokens_out: float = 0.0


@dataclass
class Meter:
    """Rates from counters that only grow."""

    clock: Callable[[], float] = time.monotonic
    _seen: deque[tuple[float, Pulse]] = field(default_factory=deque)

    def read(self, pulse: Pulse) -> Rates:
        now = self.clock()
        self._seen.append((now, pulse))
        while now - self._seen[0][0] > WINDOW:
            self._seen.popleft()
        then, first = self._seen[0]
        seconds = now - then
        if not seconds:
            return Rates()
        return Rates(
            (pulse.rows - first.rows) / seconds,
            (pulse.prompt_tokens - first.prompt_tokens) / seconds,
            (pulse.completion_tokens - first.completion_tokens) / seconds,
        )


class Progress:
    """A bar in a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, name: str, total: int, done: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._name, self._total, self._before = name, total, done
        self._meter = Meter()
        self._next_line = time.monotonic() + LINE_EVERY
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[line]}"),
        )
        self._bar = Bar(*columns, console=self._console) if self._console.is_terminal else None
        self._task = self._bar.add_task(name, total=total, completed=done, line="") if self._bar else None
        self.rates = Rates()
        self.answered = done

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, message: str) -> None:
        """A line that stays."""
        self._console.print(message, markup=False, soft_wrap=True)

    def show(self, committed: int, pulse: Pulse, workers: int, failed: int = 0) -> None:
        """committed: rows of the job that are safe in the output. failed: those of them with an error."""
        self.rates = self._meter.read(pulse)
        self.answered = min(self._total, max(committed, self._before + pulse.rows))
        line = self.line(self.answered, pulse, workers, failed)
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.answered, line=line)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            self.say(f"{self._name}: {line}")

    def line(self, answered: int, pulse: Pulse, workers: int, failed: int = 0) -> str:
        """One line that says it all."""
        parts = [
            f"{answered:,}/{self._total:,} rows",
            f"{self.rates.rows:,.1f} rows/s",
            f"{self.rates.tokens_in:,.0f} tokens/s in, {self.rates.tokens_out:,.0f} out",
            f"{pulse.running:,} running, {pulse.waiting:,} waiting",
            f"{pulse.cached_tokens:,} cached tokens",
            f"{workers} worker{'' if workers == 1 else 's'}",
        ]
        if failed:
            parts.insert(1, f"{failed:,} failed")
        if self.rates.rows > 0:
            parts.append(f"{span((self._total - answered) / self.rates.rows)} left")
        return " | ".join(parts)


class Count:
    """A count on the terminal, on a line that goes when it is done; elsewhere nothing."""

    def __init__(self, what: str, console: Console | None = None) -> None:
        self._what = what
        self._status = Status("", console=console or Console(stderr=True, highlight=False))
        self._next = 0.0

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def show(self, done: int, total: int) -> None:
        """May be called for each row."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + COUNT_EVERY
            self._status.update(f"{done:,} of {total:,} {self._what}")


def span(seconds: float) -> str:
    """ "1 h 02 min", "3 min 20 s", "4.2 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
