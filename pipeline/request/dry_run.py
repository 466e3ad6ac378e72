"""The job file's part of every request, tried before any row is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint
from pipeline.constraint.constraints import constraint_of
from pipeline.constraint.guides import check
from pipeline.errors import ConfigError, RowError
from pipeline.request.schema import CONTENT, ChatRequest, CompletionRequest, EmbeddingRequest, parse_request


def dry_run(section: str, endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    """Raises ConfigError, with its path in the job file, for a field that can make no request."""
    sample = [{"role": "user", "content": "?"}] if endpoint == "/v1/chat/completions" else "?"
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        request = parse_request(endpoint, {CONTENT[endpoint]: sample} | given, whole=False)
        if not isinstance(request, EmbeddingRequest):
            _check_constraint(request)
    except RowError as error:
        raise ConfigError(f"{section}.{error.param}: {error.message}") from None


def _check_constraint(request: ChatRequest | CompletionRequest) -> None:
    constraint = constraint_of(request)
    # Tools may come with the rows, and a grammar may name tokens of the model.
    if constraint and constraint.kind not in ("tools", "grammar"):
        check(constraint)
