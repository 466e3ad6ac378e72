"""How far a job is: from its records and the footers of what it committed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import OutputError
from pipeline.files.storage import Storage
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.history import Run, shown
from pipeline.output.records import PROGRESS, RECORD, RESPONSES, SUCCESS, footers_of, kernels_of, read_record
from pipeline.report.progress import span
from pipeline.tally import Tally

SILENCE = 60.0
"""Seconds without a word from a job's driver after which the job counts as stopped."""


@dataclass(frozen=True)
class Status:
    """rows_done: answered rows, committed or reported.
    seconds_ago: since the driver's last word.
    rows_left: that were not answered when the driver last said so, committed or not.
    silent: the driver has said nothing for SILENCE seconds, and not that it stops: it seems to be dead.
    kernels: what computed the answers, a line each.
    runs: what each of a finished job's runs added; see `pipeline/output/history.py`.
    """

    state: Literal["finished", "running", "stopped"]
    rows_done: int
    rows_total: int
    shards_done: int
    shards_total: int
    tally: Tally
    rows_per_second: float | None = None
    seconds_ago: float | None = None
    kernels: tuple[str, ...] = ()
    workers: int | None = None
    rows_left: int | None = None
    silent: bool = False
    runs: tuple[Run, ...] = ()

    @property
    def over(self) -> bool:
        """Whether nobody works on the job any more, so far as its driver could say."""
        return self.state == "finished" or (self.state == "stopped" and not self.silent)

    @property
    def pace(self) -> str:
        """Workers, rows a second and the time that is left, as far as they are known."""
        parts = []
        if self.workers is not None:
            parts.append(f"{self.workers:,} worker{'' if self.workers == 1 else 's'}")
        if self.rows_per_second is not None:
            parts.append(f"{self.rows_per_second:,.1f} rows a second")
        if self.rows_per_second:
            left = self.rows_total - self.rows_done if self.rows_left is None else self.rows_left
            parts.append(f"about {span(left / self.rows_per_second)} left")
        return ", ".join(parts)

    def __str__(self) -> str:
        lines = [
            f"{self.state}: {self.rows_done:,} of {self.rows_total:,} rows, "
            f"{self.shards_done:,} of {self.shards_total:,} shards",
            f"{self.tally.failed:,} rows with an error; {self.tally.prompt_tokens:,} prompt tokens "
            f"({self.tally.cached_tokens:,} cached), {self.tally.completion_tokens:,} completion tokens",
            *[f"  {line}" for line in self.tally.errors.lines()],
            *([f"{self.tally.skipped:,} rows skipped (input.skip)"] if self.tally.skipped else []),
        ]
        if self.state == "running" and self.pace:
            lines.append(self.pace)
        if self.silent:
            lines.append(self.warning)
        elif self.seconds_ago is not None:
            lines.append(f"last word {span(self.seconds_ago)} ago")
        lines += [f"kernels: {name}" for name in self.kernels]
        if len(self.runs) > 1:
            lines += [f"run {number}: {shown(run)}" for number, run in enumerate(self.runs, 1)]
        return "\n".join(lines)

    @property
    def warning(self) -> str:
        """What a silent driver may mean."""
        if self.seconds_ago is None:
            return "its driver has said nothing yet: it is starting, or it is dead"
        return (
            f"its driver has said nothing for {span(self.seconds_ago)}: it seems to be dead, or cut off from "
            "the output. The same command resumes the job"
        )


def status(output_url: str) -> Status:
    """Raises OutputError where no job has begun, or its records can't be read."""
    try:
        return _status(Storage.at(output_url), output_url)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(f"output {output_url}: its records can't be read: {error!r}") from error


def _status(output: Storage, output_url: str) -> Status:
    success = read_record(output, SUCCESS)
    if success:
        return _finished(success)
    record = read_record(output, RECORD)
    if record is None:
        # It may have been finished in between, and its work folder deleted.
        if success := read_record(output, SUCCESS):
            return _finished(success)
        raise OutputError(f"output {output_url}: no job has begun there")
    return _unfinished(output, record, read_record(output, PROGRESS) or {})


def _finished(success: Mapping[str, Any]) -> Status:
    tally, shards = Tally.from_dict(success["totals"]), len(success["shards"])
    ago = max(0.0, time.time() - success["finished"])
    kernels = _names(success.get("kernels", []))
    counts = (tally.rows, tally.rows, shards, shards)
    runs = tuple(success.get("runs", []))
    return Status("finished", *counts, tally, seconds_ago=ago, kernels=kernels, runs=runs)


def _unfinished(output: Storage, record: Mapping[str, Any], progress: Mapping[str, Any]) -> Status:
    prints, retry = Fingerprint.recorded(record), record.get("retry", 0)
    found = footers_of(output, output.list(RESPONSES)).values()
    footers = [footer for footer in found if footer.source == prints.source(footer.shard)]
    committed = [footer.kept if footer.awaits(retry) else footer.tally for footer in footers]
    told = Tally.from_dict(progress["tally"]) if progress.get("tally") else Tally()
    tally = max(told, sum(committed, Tally()), key=lambda t: t.rows)
    ago = max(0.0, time.time() - progress["updated"]) if "updated" in progress else None
    said_so = bool(progress.get("stopped"))
    silent = not said_so and (ago is None or ago >= SILENCE)
    return Status(
        state="stopped" if said_so or silent else "running",
        rows_done=max(int(progress.get("rows_done", 0)), tally.rows),
        rows_total=sum(shard["rows"] for shard in prints.shards.values()),
        shards_done=sum(not footer.awaits(retry) for footer in footers),
        shards_total=len(prints.shards),
        tally=tally,
        rows_per_second=progress.get("rows_per_second"),
        seconds_ago=ago,
        kernels=_names(record.get("kernels", []) + kernels_of(output)),
        workers=progress.get("workers"),
        rows_left=progress.get("rows_left"),
        silent=silent,
    )


def _names(kernels: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{note['name']} ({note['system_fingerprint']})" for note in kernels))
