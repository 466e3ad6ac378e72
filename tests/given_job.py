"""Jobs whose rows' outcomes are given, to be committed as far as a test wants."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from pipeline.answer.answer import Embedded, Usage
from pipeline.answer.answer_columns import Kind
from pipeline.answer.answers import Answers
from pipeline.answer.parsed import Expected
from pipeline.answer.vector_forms import VectorForm
from pipeline.chat.chat_format import ChatFormats
from pipeline.config import JobConfig
from pipeline.errors import RowError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, Shard, ShardPlan
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import count
from pipeline.output.manifest import Manifest
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.generated import CHAT, COMPLETION, VOCABULARY, generations, said

OUTSIDE = ("worker_crashed", "deadline_exceeded")
REJECTED = ("invalid_request", "model_not_found", "server_error")

outcomes = st.one_of(
    st.tuples(st.just("chat"), st.lists(generations(), min_size=1, max_size=2)),
    st.tuples(st.just("completion"), st.lists(generations(), min_size=1, max_size=2)),
    st.tuples(st.just("error"), st.sampled_from(OUTSIDE + REJECTED)),
)
Outcome = tuple[str, Any]
FINE: Outcome = ("chat", [said("hi")])


class Job:
    """A job over shards of given outcomes, of which nothing is committed yet."""

    def __init__(
        self,
        shards: Mapping[str, Sequence[Outcome]],
        kind: Kind = "generate",
        url: str = "",
        template: str | None = None,
        parsed: Expected | None = None,
        vectors: VectorForm = "float32",
    ) -> None:
        self.url = url or f"memory://{uuid.uuid4()}"
        self.plans = {
            name: ShardPlan(Shard(name, f"/nowhere/{name}", 1, ""), len(rows), "0", ("messages",))
            for name, rows in shards.items()
        }
        self.rows = {name: list(rows) for name, rows in shards.items()}
        config = JobConfig.model_validate(
            {"model": {"path": "m"}, "input": {"path": "i"}, "output": {"path": self.url, "keep": ["kept"]}}
        )
        prints = Fingerprint.of(config, "ab" * 32, self.plans.values())
        kept = pa.schema({"kept": pa.string()})
        self.answers = Answers(
            "m",
            prints.digest,
            kept,
            kind,
            vocabulary=VOCABULARY,
            formats=ChatFormats(template),
            parsed=parsed,
            vectors=vectors,
        )
        self.manifest = Manifest(Storage.at(self.url), prints)
        self.manifest.begin()

    @property
    def names(self) -> list[str]:
        return [f"{name}:{n}" for name in sorted(self.rows) for n in range(len(self.rows[name]))]

    def table(self, chunk: Chunk) -> pa.Table:
        numbers = range(chunk.start, chunk.stop)
        records = [self.record(f"{chunk.shard}:{n}", *self.rows[chunk.shard][n]) for n in numbers]
        return self.answers.table(records, pa.table({"kept": ["x"] * chunk.rows}))

    def record(self, name: str, kind: str, what: Any) -> dict[str, Any]:
        if kind == "error":
            return self.answers.error(name, RowError(what, "it says why", "messages"), 1)
        if kind == "embedding":
            request = parse_request("/v1/embeddings", {"input": ["?"] * len(what)})
            return self.answers.embedding(Row(name, request), Embedded(np.float32(what), Usage(3)), 1)
        if kind == "chat":
            return self.answers.chat(Row(name, CHAT), what, 1)
        return self.answers.completion(Row(name, COMPLETION), what, 1)

    def commit(self, *names: str, reused: int = 0) -> Job:
        """reused: rows of each shard that were equal to others."""
        for name in names or self.plans:
            table = self.table(Chunk(name, 0, self.plans[name].rows))
            self.manifest.commit_whole(self.plans[name], table, replace(count(table, name), reused=reused))
        return self

    def commit_chunk(self, chunk: Chunk) -> None:
        table = self.table(chunk)
        self.manifest.commit_chunk(chunk, table, count(table, chunk.shard))

    def finish(self) -> Job:
        self.commit()
        self.manifest.finish(list(self.plans.values()))
        return self
