"""What people see of a job at its end."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report.progress import span
from pipeline.tally import Tally


@dataclass(frozen=True)
class Summary:
    """A finished job.

    totals: of all its runs.
    rows, tokens, seconds: of this run.
    unread: what there is in the input that isn't read; "" for nothing.
    """

    name: str
    output: str
    shards: int
    totals: Tally
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    unread: str = ""

    def __str__(self) -> str:
        totals = self.totals
        lines = [
            f"{self.name}: {totals.rows:,} rows in {self.shards:,} shard{'' if self.shards == 1 else 's'}; "
            f"{totals.succeeded:,} succeeded, {totals.failed:,} with an error",
            f"tokens: {totals.prompt_tokens:,} in ({totals.cached_tokens:,} cached), "
            f"{totals.completion_tokens:,} out",
            *([self.unread] if self.unread else []),
            *self._reused(),
            *[f"  {line}" for line in totals.errors.lines()],
            self._speed(),
            f"answers: {self.output}/responses    check them: nightherd verify {self.output}",
            f"""look at them: python -c "import pyarrow.parquet as pq; print({self._look()})\"""",
        ]
        return "\n".join(lines)

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

    def _look(self) -> str:
        column = "text" if self.totals.completion_tokens else "status_code"
        read = f"pq.read_table('{self.output}/responses', columns=['custom_id', '{column}'])"
        return f"{read}.slice(0, 5).to_pylist()"
