"""Where a job shows how it is getting on: to the person at the terminal, and to `nightherd status`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from pipeline.files.storage import Storage
from pipeline.job.run import Run
from pipeline.pulse import Pulse
from pipeline.report.progress import Progress
from pipeline.report.progress_file import ProgressFile


class JobScreen:
    """The bar or the lines of a run, and its progress file."""

    def __init__(self, name: str, run: Run, output: Storage) -> None:
        self._run = run
        self._progress = Progress(name, run.rows, run.before.rows)
        self._file = ProgressFile(output)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._run.is_part or self._run.ended:
            self._file.stop()
        self._file.__exit__(kind, error, trace)

    @property
    def rows_per_second(self) -> float:
        return self._progress.rates.rows

    def say(self, message: str) -> None:
        self._progress.say(message)

    def show(self, run: Run, pulse: Pulse, workers: int) -> None:
        self._progress.show(run.done.rows, pulse, workers, run.done.failed)
        self._file.write(
            rows_done=run.done.rows,
            rows_total=run.rows,
            shards_done=run.shards_done,
            shards_total=run.shards,
            tally=run.done.to_dict(),
            rows_per_second=self.rows_per_second,
        )
