"""What people see of a job at its end."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.output.records import TRY_OUT
from pipeline.plan.held import Held
from pipeline.report.forecast_text import held_lines
from pipeline.report.progress import span
from pipeline.tally import Tally


@dataclass(frozen=True)
class _OneRun:
    """What a command did for a job.

    totals: of all runs.
    rows, tokens, seconds: of this run.
    unread: what there is in the input that isn't read; "" for nothing.
    """

    name: str
    output: str
    totals: Tally
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    unread: str = ""

    def _counts(self) -> list[str]:
        totals = self.totals
        return [
            f"tokens: {totals.prompt_tokens:,} in ({totals.cached_tokens:,} cached), "
            f"{totals.completion_tokens:,} out",
            *([self.unread] if self.unread else []),
            *self._skipped(),
            *self._reused(),
            *[f"  {line}" for line in totals.errors.lines()],
            self._speed(),
        ]

    def _skipped(self) -> list[str]:
        rows = self.totals.skipped
        were = "row was" if rows == 1 else "rows were"
        return [f"{rows:,} {were} skipped: another output has the answer (input.skip)"] if rows else []

    def _reused(self) -> list[str]:
        if not self.totals.reused:
            return []
        were = (
            "row was equal to an earlier one"
            if self.totals.reused == 1
            else "rows were equal to earlier ones"
        )
        return [f"{self.totals.reused:,} {were} and not computed again"]

    def _speed(self) -> str:
        if not self.rows:
            return "this run: nothing was left to do"
        rate = f"{self.rows / self.seconds:,.1f} rows/s, {self.tokens / self.seconds:,.0f} tokens/s"
        return f"this run: {self.rows:,} rows in {span(self.seconds)}, {rate}"

    def _look_at(self, answers: str) -> str:
        column = "text" if self.totals.completion_tokens else "status_code"
        read = f"pq.read_table('{self.output}/{answers}', columns=['custom_id', '{column}'])"
        look = f"{read}.slice(0, 5).to_pylist()"
        return f"""look at them: python -c "import pyarrow.parquet as pq; print({look})\""""


@dataclass(frozen=True, kw_only=True)
class Summary(_OneRun):
    """A finished job. held: its forecast against what came, if there was one."""

    shards: int
    held: tuple[Held, ...] = ()

    def __str__(self) -> str:
        totals = self.totals
        lines = [
            f"{self.name}: {totals.rows:,} rows in {self.shards:,} shard{'' if self.shards == 1 else 's'}; "
            f"{totals.succeeded:,} succeeded, {totals.failed:,} with an error",
            *self._counts(),
            *held_lines(self.held),
            f"answers: {self.output}/responses    check them: nightherd verify {self.output}",
            self._look_at("responses"),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Ended(_OneRun):
    """A job that a limit ended for now.

    totals: of what is committed. of: all rows of the job. why: the limit, in words.
    """

    of: int
    why: str

    def __str__(self) -> str:
        totals = self.totals
        return "\n".join(
            [
                f"{self.name}: {self.why}",
                f"{totals.rows:,} of {self.of:,} rows are answered, {totals.failed:,} with an error; "
                f"{self.of - totals.rows:,} are missing",
                *self._counts(),
                f"answers so far: {self.output}    a page about them: nightherd report {self.output}",
                "the rest: the same command goes on with it",
            ]
        )


@dataclass(frozen=True, kw_only=True)
class TriedOut(_OneRun):
    """A part of a job that was tried out. totals: of that part. of: all rows of the job. how: the flag."""

    of: int
    how: str

    def __str__(self) -> str:
        totals = self.totals
        which = "the first" if self.how == "--limit" else "a sample of"
        lines = [
            f"{self.name}: a try-out, {which} {totals.rows:,} of {self.of:,} rows; "
            f"{totals.succeeded:,} succeeded, {totals.failed:,} with an error",
            *self._counts(),
            f"answers: {self.output}/{TRY_OUT}    a page about them: nightherd report {self.output}",
            self._look_at(TRY_OUT),
            f"the whole job: the same command without {self.how}; it keeps these answers",
        ]
        return "\n".join(lines)
