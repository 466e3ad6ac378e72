"""What a job's record says of each of its shards, and which version of a shard answers belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline.input.shards import Shard, ShardPlan

Entry = Mapping[str, Any]
"""A shard in a job's record.

rows, size, digest: what tells its versions apart. stamp: its etag or time of change. run: the number of the
run that took it on, where that isn't the first. kept: its file has changed or gone, and its answers stay.
"""
IDENTITY = ("rows", "size", "digest")


def entry_of(plan: ShardPlan) -> dict[str, Any]:
    """The entry of a shard that a job takes on."""
    return {"rows": plan.rows, "size": plan.shard.size, "digest": plan.digest, "stamp": plan.shard.stamp}


def recorded_plan(shard: Shard, entry: Entry) -> ShardPlan:
    """The plan of a shard whose answers are there, without a look into its file."""
    return ShardPlan(shard, entry["rows"], entry["digest"], (), recorded=True)


def identity_of(entry: Entry) -> dict[str, Any]:
    """What tells a shard's versions apart, and whether the answers are kept of one that changed."""
    kept = {"kept": True} if entry.get("kept") else {}
    return {name: entry.get(name) for name in IDENTITY} | kept


def is_same(one: Entry, other: Entry) -> bool:
    """Whether two entries are of one version of a shard."""
    return all(one.get(name) == other.get(name) for name in IDENTITY)


def source_of(entry: Entry) -> str:
    """16 hex digits that stand in the footers of the answers to this version of a shard."""
    text = json.dumps([entry[name] for name in IDENTITY])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
