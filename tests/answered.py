"""Outputs of made-up answers with kept columns, for what reads outputs: reports, comparisons, notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.answer.answer import Embedded, Usage
from pipeline.answer.answer_columns import Kind
from pipeline.answer.answers import Answers
from pipeline.answer.parsed import Expected
from pipeline.config import JobConfig
from pipeline.engine.sampling.deciding import Decision
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError
from pipeline.files.storage import Storage
from pipeline.input.shards import Chunk, Shard, ShardPlan
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.footer import count
from pipeline.output.manifest import Manifest
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request
from tests.generated import VOCABULARY

Answer = dict[str, Any]


@dataclass
class Answered:
    """A job over shards of given rows. keep: the columns carried along.

    rows: by shard; each row has its answer (a text, a vector, or a RowError) and the kept columns' values.
    """

    url: str
    rows: Mapping[str, Sequence[tuple[Any, Mapping[str, Any]]]]
    keep: pa.Schema = field(default_factory=lambda: pa.schema([]))
    kind: Kind = "generate"
    request: Mapping[str, Any] = field(default_factory=dict)
    name: str = "made up"
    input_url: str = "/nowhere"

    def __post_init__(self) -> None:
        tree = {
            "name": self.name,
            "model": {"path": "model.gguf"},
            "input": {"path": self.input_url},
            "output": {"path": self.url, "keep": self.keep.names},
            "request": dict(self.request),
        }
        self.config = JobConfig.model_validate(tree)
        self.plans = {
            name: ShardPlan(Shard(name, f"/nowhere/{name}", 1, ""), len(rows), "0", ("messages",))
            for name, rows in self.rows.items()
        }
        body = {"messages": [{"role": "user", "content": "Hi"}]} | self.config.request.defaults
        self.chat = parse_request("/v1/chat/completions", body)
        parsed = Expected.of(self.chat)
        typed = parsed.to_json() if parsed else None
        prints = Fingerprint.of(self.config, "ab" * 32, self.plans.values(), typed)
        about = {"name": self.name, "input": self.input_url, "job": self.config.model_dump(mode="json")}
        self.answers = Answers("m", prints.digest, self.keep, self.kind, vocabulary=VOCABULARY, parsed=parsed)
        self.manifest = Manifest(Storage.at(self.url), prints, about)
        self.manifest.begin()

    def table(self, chunk: Chunk) -> pa.Table:
        rows = self.rows[chunk.shard][chunk.start : chunk.stop]
        records = [
            self.record(f"{chunk.shard}:{n}", answer) for n, (answer, _) in enumerate(rows, chunk.start)
        ]
        kept = pa.Table.from_pylist([dict(values) for _, values in rows], schema=self.keep)
        if not self.keep.names:
            kept = pa.table({"_": [None] * len(rows)})
        return self.answers.table(records, kept)

    def record(self, name: str, answer: Any) -> Answer:
        if isinstance(answer, RowError):
            return self.answers.error(name, answer, 3)
        if isinstance(answer, np.ndarray):
            request = parse_request("/v1/embeddings", {"input": "?"})
            return self.answers.embedding(Row(name, request), Embedded(np.float32([answer]), Usage(3)), 1)
        if isinstance(answer, str):
            answer = {"text": answer}
        fields = {key: value for key, value in answer.items() if key in Generation.__dataclass_fields__}
        tokens = tuple(range(fields.pop("tokens", len(answer["text"]) // 4 + 1)))
        given: dict[str, Any] = {"finish_reason": "stop", "prompt_tokens": 60, "cached_tokens": 40} | fields
        if "labels" in answer:
            names, scores = zip(*answer["labels"].items(), strict=True)
            given["decisions"] = (Decision(None, names, scores, 0),)
        record = self.answers.chat(Row(name, self.chat), [Generation(tokens=tokens, **given)], 1)
        return record | {key: answer[key] for key in ("created", "seconds") if key in answer}

    def commit(self, *names: str) -> Answered:
        for name in names or self.plans:
            table = self.table(Chunk(name, 0, self.plans[name].rows))
            self.manifest.commit_whole(self.plans[name], table, replace(count(table), seconds=1.0))
        return self

    def commit_chunk(self, chunk: Chunk) -> Answered:
        table = self.table(chunk)
        self.manifest.commit_chunk(chunk, table, count(table))
        return self

    def finish(self) -> Answered:
        self.commit()
        self.manifest.finish(list(self.plans.values()))
        return self
