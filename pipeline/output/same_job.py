"""Whether the record in an output is that of a job, and of its shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import OutputError
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.sources import identity_of

_SHOWN = 10


def check_same_job(output_url: str, job: Fingerprint, record: Mapping[str, Any]) -> None:
    """Raises OutputError, which names every difference, where it is another job's record; shards aside."""
    earlier = Fingerprint.recorded(record)
    if record.get("fingerprint") == job.digest and earlier.format == job.format:
        return
    if earlier.digest != record.get("fingerprint"):
        raise OutputError(f"output {output_url}: its record isn't what its fingerprint was made of")
    lines = job.differences(earlier.with_shards(job.shards, earlier.format))
    if not lines:
        raise OutputError(
            f"output {output_url} was begun by an earlier version, which bound its answers to all of its "
            "input: choose another output"
        )
    raise differs(output_url, lines)


def differs(output_url: str, lines: Sequence[str]) -> OutputError:
    """The error that an output is another job's. lines: the differences."""
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    head = (
        f"output {output_url} was begun with other settings, another model or other input; "
        "choose another output, or restore what differs:"
    )
    return OutputError("\n  ".join([head, *lines[:_SHOWN], *more]))


def has_other_shards(job: Fingerprint, record: Mapping[str, Any]) -> bool:
    """Whether the record has other shards than the job, or other versions of them."""
    theirs, ours = Fingerprint.recorded(record).shards, job.shards
    return theirs.keys() != ours.keys() or any(
        identity_of(ours[name]) != identity_of(theirs[name]) for name in ours
    )
