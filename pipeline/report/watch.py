"""A job watched from outside, until it ends: `nightherd status OUT --watch`."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.errors import StorageError
from pipeline.report.status import Status, status

EVERY = 2.0
"""Seconds between two looks, by default: a driver tells how far it is as often."""


def watch(
    output_url: str,
    every: float = EVERY,
    console: Console | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Status:
    """Shows a job's status until the job is finished or stopped; the last status. every: seconds.

    A job whose driver seems to be dead is watched on: it may be resumed. What storage refuses once there has
    been a status is tried again. Raises OutputError where no job has begun, or its records can't be read.
    """
    found = status(output_url)
    with _Screen(console or Console(highlight=False)) as screen:
        screen.show(found, "")
        while not found.over:
            sleep(every)
            trouble = ""
            try:
                found = status(output_url)
            except StorageError as error:
                trouble = str(error)
            screen.show(found, trouble)
    return found


class _Screen:
    """A terminal's is drawn anew each time; elsewhere there is a line for each change, and all at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last = ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, status: Status, trouble: str) -> None:
        if self._live:
            self._live.update(_picture(status, trouble), refresh=True)
            return
        line = trouble or (str(status) if status.over else _line(status))
        if line != self._last:
            self._console.print(line, markup=False, soft_wrap=True)
        self._last = line


def _line(status: Status) -> str:
    failed = f"{status.tally.failed:,} failed" if status.tally.failed else ""
    parts = [f"{status.state}: {status.rows_done:,} of {status.rows_total:,} rows", failed]
    parts.append(status.warning if status.silent else status.pace)
    return ", ".join(filter(None, parts))


def _picture(status: Status, trouble: str) -> RenderableType:
    picture = Table.grid()  # A bar alone does not end its line.
    picture.add_row(ProgressBar(total=max(1, status.rows_total), completed=status.rows_done, width=60))
    picture.add_row(Text(str(status)))
    if trouble:
        picture.add_row(Text(f"not of now: {trouble}", style="red"))
    return picture
