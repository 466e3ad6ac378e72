"""What some rows asked, for a page that shows their answers: from the input, where it is still there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.config import RequestConfig
from pipeline.errors import JobError, RowError
from pipeline.input.shard_reader import ShardReader, row_reader
from pipeline.input.shards import Chunk, Shard, list_shards, plan_shard
from pipeline.request.rows import records
from pipeline.request.schema import ChatRequest, CompletionRequest, Request

LARGEST = 64 << 20
"""Bytes of a shard that is read for the sake of a few rows."""

Place = tuple[str, int]
"""A shard's name, and a row's number in it."""


def asked(
    input_url: str, output_url: str, request: Mapping[str, Any], places: Iterable[Place]
) -> dict[Place, str]:
    """The last message or the prompt of each of these rows; rows that can't be read are left out.

    The input may be gone, or be another by now: a page is no worse for it.
    """
    wanted: defaultdict[str, set[int]] = defaultdict(set)
    for shard, row in places:
        wanted[shard].add(row)
    try:
        config = RequestConfig.model_validate(request)
        shards = {shard.name: shard for shard in list_shards(input_url, output_url)} if wanted else {}
    except (JobError, ValueError):
        return {}
    found: dict[Place, str] = {}
    for name in sorted(wanted.keys() & shards.keys()):
        if shards[name].size <= LARGEST:
            found.update(_rows(shards[name], config, sorted(wanted[name])))
    return found


def _rows(shard: Shard, config: RequestConfig, numbers: Iterable[int]) -> Iterator[tuple[Place, str]]:
    try:
        plan = plan_shard(shard)
        rows = row_reader(config, plan)
        with ShardReader(plan, rows.columns) as reader:
            for number in numbers:
                table = reader.read(Chunk(shard.name, number, number + 1))
                (record,) = records(table, rows.columns)
                if text := _text(rows.read(record, number).request):
                    yield (shard.name, number), text
    except (JobError, ValueError):
        return


def _text(request: Request | RowError) -> str | None:
    if isinstance(request, ChatRequest):
        return request.messages[-1].content
    if isinstance(request, CompletionRequest) and isinstance(request.prompt, str):
        return request.prompt
    return None
