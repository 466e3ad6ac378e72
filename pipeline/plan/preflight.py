"""What of a job can be known to be wrong before its output is claimed for it, or a worker started.

A job that is corrected has another fingerprint: an output that was claimed for the wrong one would refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from pipeline.answer.answer_columns import response_schema
from pipeline.answer.parsed import Expected
from pipeline.config import JobConfig
from pipeline.errors import ConfigError
from pipeline.model.gguf import read_header
from pipeline.model.models import LocalModel
from pipeline.output.fingerprint import Fingerprint


def check_model(job: JobConfig, model: LocalModel, fingerprint: Fingerprint) -> None:
    """Holds the job against what the GGUF's header says. Raises ConfigError, ModelError.

    fingerprint: the job's, which says whether there is a column `parsed`.
    """
    header = read_header(model.path)
    architecture = header.value("general.architecture")
    parsed = Expected.from_json(fingerprint.parsed) if fingerprint.parsed else None
    kept = pa.schema([(name, pa.null()) for name in job.output.kept.values()])
    if header.value(f"{architecture}.pooling_type"):
        response_schema("embed", kept, vectors=job.output.embedding)
    elif job.output.embedding != "float32":
        raise ConfigError(
            f"output.embedding: {job.output.embedding}, but {model.path.name} gives no embeddings, only text"
        )
    else:
        response_schema("generate", kept, parsed and parsed.column_type)
    context = header.value(f"{architecture}.context_length")
    if isinstance(context, int):
        _check_context(job, context)
    _check_names(job, {"local", job.model.id or model.path.stem})


def _check_context(job: JobConfig, most: int) -> None:
    if job.engine.context != "auto" and job.engine.context > most:
        raise ConfigError(
            f"engine.context: {job.engine.context}, but the model was trained for at most {most} tokens"
        )
    for path, fields in _said(job):
        for name in ("max_tokens", "max_completion_tokens"):
            asked = fields.get(name)
            if isinstance(asked, int | float) and asked > most:
                raise ConfigError(f"{path}.{name}: must be from 1 to {most}, the model's context limit")


def _check_names(job: JobConfig, names: set[str]) -> None:
    for path, fields in _said(job):
        asked = fields.get("model")
        if isinstance(asked, str) and "{" not in asked and asked not in names:
            served = ", ".join(f'"{name}"' for name in sorted(names))
            raise ConfigError(
                f'{path}.model: the model "{asked}" is not served; served: {served}; model.id names another'
            )


def _said(job: JobConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the job file says of every request."""
    yield "request.defaults", job.request.defaults
    yield "request.template", job.request.template or {}
