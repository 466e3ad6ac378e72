"""Answers become rows: what the engine made of a request, as a record of the output's columns."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.answer.answer import Embedded, Usage
from pipeline.answer.answer_columns import Kind, Record, response_schema
from pipeline.answer.answer_reader import AnswerReader
from pipeline.answer.columns import columns_of, usage_columns
from pipeline.answer.parsed import Expected
from pipeline.answer.vector_forms import VectorForm, stored
from pipeline.chat.chat_format import ChatFormats
from pipeline.engine.model import Vocabulary
from pipeline.engine.sequence import Generation
from pipeline.errors import RowError
from pipeline.failures import Failures, Reason
from pipeline.native.kernels import system_fingerprint
from pipeline.request.rows import Row
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest
from pipeline.tally import ALREADY_ANSWERED, Tally


class Answers:
    """Makes the output rows of one job."""

    def __init__(
        self,
        model_id: str,
        fingerprint: str,
        kept: pa.Schema,
        kind: Kind = "generate",
        *,
        vocabulary: Vocabulary | None = None,
        formats: ChatFormats | None = None,
        kernels: str = "",
        parsed: Expected | None = None,
        vectors: VectorForm = "float32",
    ) -> None:
        """fingerprint: the job's. kept: the input columns to carry along. vocabulary: for rows that ask
        for logprobs. formats: the chat templates, which tell how the model writes reasoning and calls.
        kernels: the id of those that computed the answers. parsed: what the column `parsed` is made by.
        vectors: how embeddings are stored."""
        self._parsed = parsed if kind == "generate" else None
        self._vectors = vectors
        self.schema = response_schema(kind, kept, self._parsed and self._parsed.column_type, vectors)
        self._own = pa.schema(list(self.schema)[: len(self.schema) - len(kept)])
        self._model_id = model_id
        self._system_fingerprint = system_fingerprint(fingerprint, kernels)
        self._reader = AnswerReader(fingerprint, vocabulary=vocabulary, formats=formats)

    def chat(self, row: Row, choices: Sequence[Generation], attempts: int, *, reused: bool = False) -> Record:
        """choices: one for each of the `n` that were asked for.
        reused: the row was answered by an earlier equal one, and nothing was computed."""
        return self._generated(row, choices, attempts, "chatcmpl", reused=reused)

    def completion(
        self, row: Row, choices: Sequence[Generation], attempts: int, *, reused: bool = False
    ) -> Record:
        """As `chat`."""
        return self._generated(row, choices, attempts, "cmpl", reused=reused)

    def embedding(self, row: Row, answer: Embedded, attempts: int) -> Record:
        assert isinstance(row.request, EmbeddingRequest)
        return self._head(row.custom_id, attempts) | columns_of(row.request, answer)

    def error(self, custom_id: str, error: RowError, attempts: int) -> Record:
        """A row that got no answer; it has no usage."""
        details = {"code": error.code, "message": error.message, "type": error.type, "param": error.param}
        return self._head(custom_id, attempts) | {"status_code": error.status_code, "error": details}

    def skipped(self, custom_id: str) -> Record:
        """A row that another output has the answer to."""
        return {
            "custom_id": custom_id,
            "status_code": ALREADY_ANSWERED,
            "created": int(time.time()),
            "attempts": 0,
        }

    def table(self, rows: Sequence[Record], kept: pa.Table) -> pa.Table:
        """The rows as a table of `schema`. kept: the rows' input columns to carry along, in order."""
        own = pa.Table.from_pylist([stored(row, self._vectors) for row in rows], schema=self._own)
        columns = [kept.column(name) for name in self.schema.names[len(self._own) :]]
        return pa.Table.from_arrays([*own.columns, *columns], schema=self.schema)

    def _head(self, custom_id: str, attempts: int) -> Record:
        return {
            "custom_id": custom_id,
            "status_code": 200,
            "created": int(time.time()),
            "model": self._model_id,
            "system_fingerprint": self._system_fingerprint,
            "attempts": attempts,
        }

    def _generated(
        self, row: Row, choices: Sequence[Generation], attempts: int, prefix: str, *, reused: bool
    ) -> Record:
        request = row.request
        assert isinstance(request, ChatRequest | CompletionRequest)
        answer = self._reader.read(request, choices, row.custom_id, reused=reused)
        record = self._head(row.custom_id, attempts) | columns_of(request, answer)
        record["id"] = f"{prefix}-{self._reader.digest(row.custom_id)}"
        if self._parsed:
            record["parsed"] = self._parsed.parse(request, answer.choices)
        return record


def tally(rows: Sequence[Mapping[str, Any]], seconds: float, shard: str = "") -> Tally:
    """What the output rows cost together. seconds: how long they took. shard: which the rows are of."""
    errors = Failures.of(
        Reason(error["code"], error["message"], 1, shard, row["custom_id"])
        for row in rows
        if (error := row.get("error")) is not None
    )
    return sum((_row_tally(row) for row in rows), Tally(seconds=seconds, errors=errors))


def _row_tally(row: Mapping[str, Any]) -> Tally:
    usage = row.get("usage") or usage_columns(Usage(0))
    failed, skipped = row.get("error") is not None, row.get("status_code") == ALREADY_ANSWERED
    return Tally(
        rows=1,
        succeeded=int(not failed and not skipped),
        failed=int(failed),
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        attempts=row["attempts"],
        reused=int(row.get("reused", False)),
    )
