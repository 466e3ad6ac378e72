"""A job's input and output: reached, and what is there."""

from __future__ import annotations

import uuid

from rich.filesize import decimal

from pipeline.config import JobConfig
from pipeline.doctor.check import Check
from pipeline.errors import NightherdError
from pipeline.files.storage import Storage
from pipeline.input.shards import Shard, list_input, plan_shard
from pipeline.job.worker import check_input
from pipeline.output.records import RECORD, SUCCESS, read_record

_LOOKED_INTO = 8


def examine_data(job: JobConfig) -> list[Check]:
    """Lists the input and looks into a few shards; writes a small file to the output and removes it."""
    return [_input(job), _output(job)]


def _input(job: JobConfig) -> Check:
    try:
        listing = list_input(job.input.path, job.output.path)
        for shard in _some(listing.shards):
            check_input(job, plan_shard(shard))
    except NightherdError as error:
        return Check("input", job.input.path, "problem", str(error))
    size = sum(shard.size for shard in listing.shards)
    found = f"{job.input.path}, {len(listing.shards):,} shards, {decimal(size)}"
    facts = {"shards": len(listing.shards), "bytes": size, "unread": listing.unread}
    if listing.note:
        return Check("input", found, "warning", listing.note, facts=facts)
    return Check("input", found, facts=facts)


def _some(shards: list[Shard]) -> list[Shard]:
    """The first shards, and those at even distances behind them."""
    return shards[:: max(1, len(shards) // _LOOKED_INTO)][:_LOOKED_INTO]


def _output(job: JobConfig) -> Check:
    name = f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        output = Storage.at(job.output.path)
        state = _state(output)
        output.replace(name, b"written by nightherd doctor")
        output.remove(name)
        output.remove_empty("")
    except (NightherdError, OSError) as error:
        return Check("output", job.output.path, "problem", str(error))
    return Check("output", f"{job.output.path}, {state}", facts={"state": state})


def _state(output: Storage) -> str:
    if read_record(output, SUCCESS):
        return "a finished job"
    return "a job under way" if read_record(output, RECORD) else "no job yet"
