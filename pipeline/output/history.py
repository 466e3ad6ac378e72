"""What each run added to an output, as `_SUCCESS` tells it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.output.sources import Entry
from pipeline.tally import Tally

Run = Mapping[str, Any]
"""finished: Unix time. shards, rows, prompt_tokens, completion_tokens, total_tokens: what it added.
retry: the number of the retry that it was, of rows that had failed; absent for a run that took shards on."""
_COUNTS = ("rows", "prompt_tokens", "completion_tokens", "total_tokens")


def number_of(runs: Sequence[Run]) -> int:
    """The number of the run after those: 1 for the first."""
    return 1 + sum("retry" not in run for run in runs)


def shown(run: Run) -> str:
    """A run in a line."""
    shards = f"{run['shards']:,} shard{'' if run['shards'] == 1 else 's'}"
    what = f"retry {run['retry']} answered" if "retry" in run else f"added {shards} with"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["finished"]))
    return f"{when}, {what} {run['rows']:,} rows; {run['total_tokens']:,} tokens"


def runs_with(
    runs: Sequence[Run],
    shards: Mapping[str, Entry],
    tallies: Mapping[str, Tally],
    retry: int = 0,
    before: Mapping[str, Any] | None = None,
    *,
    finished: float,
) -> list[Run]:
    """The runs of a job that is finished now, at that Unix time.

    runs: those before. tallies: of all its shards now. retry: the number of the retry that ends, 0 for none.
    before: the totals as they were before that retry.
    """
    found, number = list(runs), number_of(runs)
    added = [tally for name, tally in tallies.items() if shards[name].get("run", 1) == number]
    if retry and before is not None:
        old = [tally for name, tally in tallies.items() if shards[name].get("run", 1) < number]
        found.append({"finished": finished, **_retried(sum(old, Tally()), before, retry)})
    if added or not found:
        counts = _counts(sum(added, Tally()).numbers)
        found.append({"finished": finished, "shards": len(added), **counts})
    return found


def _retried(now: Tally, before: Mapping[str, Any], retry: int) -> Run:
    """rows: those that failed before and have an answer now."""
    now_answered = now.numbers | {"rows": now.succeeded}
    then_answered = {**before, "rows": before["succeeded"]}
    gained = {name: max(0, now_answered[name] - then_answered[name]) for name in _COUNTS}
    return {"shards": 0, "retry": retry} | gained


def _counts(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: numbers[name] for name in _COUNTS}
