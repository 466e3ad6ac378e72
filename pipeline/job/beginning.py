"""How a run begins with a job's output, or goes on with it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import OutputError
from pipeline.input.shards import ShardPlan
from pipeline.job.run import Run
from pipeline.output.amendment import Amendment
from pipeline.output.manifest import Manifest
from pipeline.plan.try_out import Part
from pipeline.tally import Tally

Commit = Callable[[ShardPlan], Tally]
"""Puts a shard whose rows have all come back into its place."""
Begin = Callable[[Manifest, Run], Commit | None]
"""Begins with an output, or goes on with it; None where nothing is left to do."""


def begin_whole(manifest: Manifest, run: Run) -> Commit | None:
    """None where the job is finished already. A retry that was stopped goes on."""
    if manifest.begin():
        return None
    if manifest.retry:
        return _amend(manifest, run)
    manifest.output.sweep()
    run.take_stock()
    return manifest.commit_shard


def begin_part(part: Part, manifest: Manifest, run: Run) -> Commit:
    """Begins a try-out, or goes on with it. Raises OutputError where the job has no place for one."""
    output = manifest.output.url
    if manifest.is_finished:
        raise OutputError(
            f"output {output}: the job is finished, and each row that it had is answered: nothing is left "
            f"to try out. nightherd run answers new shards; see nightherd report {output}, or choose "
            "another output"
        )
    manifest.begin()
    if manifest.retry:
        raise OutputError(
            f"output {output}: its failed rows are being retried: nightherd retry {output} goes on with it"
        )
    manifest.output.sweep()
    run.take_stock(part)
    return manifest.commit_shard


def reopen(manifest: Manifest, run: Run) -> Commit:
    manifest.reopen()
    return _amend(manifest, run)


def _amend(manifest: Manifest, run: Run) -> Commit:
    amendment = Amendment(manifest, manifest.retry)
    manifest.output.sweep()
    run.take_failed(amendment)
    return amendment.commit_any
