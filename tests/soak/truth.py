"""What must be true of a finished output, found without the pipeline's help where that is possible."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.storage import Storage
from pipeline.output.records import RESPONSES, SUCCESS, USAGE
from pipeline.output.verify import verify
from tests.soak.case import Case, Fate


def problems(case: Case, phase: int) -> Iterator[str]:
    """phase: how often the job was retried."""
    yield from verify(case.output, deep=True).problems
    output = Storage.at(case.output)
    names = {shard: f"{RESPONSES}/{PurePosixPath(shard).with_suffix('.parquet')}" for shard in case.prompts}
    strangers = set(output.list()) ^ {*names.values(), SUCCESS, USAGE}
    if strangers:
        yield f"left over or absent: {sorted(strangers)}"
        return
    usage = {row.pop("shard"): row for row in _read(output, USAGE).to_pylist()}
    whole: Counter[str] = Counter()
    for shard, name in names.items():
        table = _read(output, name)
        counts = _counted([Fate.of(prompt, phase) for prompt in case.prompts[shard]], table)
        whole += counts
        footer = json.loads(table.schema.metadata[b"nightherd"])["tally"]
        if not _cut(footer, counts) == _cut(usage.pop(shard), counts) == counts:
            yield f"{shard}: the rows cost {counts}, but its footer says {footer}"
    if usage:
        yield f"{USAGE} names other shards: {sorted(usage)}"
    totals = json.loads(output.read_bytes(SUCCESS))["totals"]
    if _cut(totals, whole) != whole:
        yield f"{SUCCESS} says {totals}, the rows cost {whole}"


def _read(output: Storage, name: str) -> pa.Table:
    with output.open_input(name) as file:
        return pq.ParquetFile(file).read()


def _counted(fates: list[Fate], answers: pa.Table) -> Counter[str]:
    """What the rows must have cost; only how often they were tried is for the rows to say."""
    good = [fate.task for fate in fates if not fate.code]
    prompt = sum(task.prompt_tokens for task in good)
    completion = sum(task.completion_tokens for task in good)
    return Counter(
        rows=len(fates),
        succeeded=len(good),
        failed=len(fates) - len(good),
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=sum(task.cached_tokens for task in good),
        total_tokens=prompt + completion,
        attempts=sum(answers["attempts"].to_pylist()),
    )


def _cut(record: dict[str, Any], counts: Counter[str]) -> Counter[str]:
    return Counter({name: record[name] for name in counts})
