"""Where a job shows how it is getting on: at the terminal, to `nightherd status`, and in Ray's metrics."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from pipeline.files.storage import Storage
from pipeline.job.actors.job_metrics import JobMetrics
from pipeline.job.run import Run
from pipeline.pulse import Pulse
from pipeline.report.progress import Progress
from pipeline.report.progress_file import ProgressFile


class JobScreen:
    """The bar or the lines of a run, its progress file and its metrics."""

    def __init__(self, name: str, run: Run, output: Storage) -> None:
        self._run = run
        self._progress = Progress(name, run.rows, run.before.rows)
        self._file = ProgressFile(output)
        self._metrics = JobMetrics(name)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        self._write()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        self._metrics.record(self._run.tally, self._run.deaths)
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
        self._metrics.show(
            run.tally, run.deaths, self._progress.answered, run.rows, self._progress.rates, workers
        )
        self._write(workers)

    def _write(self, workers: int = 0) -> None:
        run = self._run
        self._file.write(
            rows_done=run.done.rows,
            rows_total=run.rows,
            rows_left=run.rows - self._progress.answered,
            shards_done=run.shards_done,
            shards_total=run.shards,
            tally=run.done.to_dict(),
            rows_per_second=self.rows_per_second,
            workers=workers,
        )
