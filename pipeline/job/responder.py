"""What answers a job's rows, over a service that may have other callers as well."""

from __future__ import annotations

import pyarrow as pa

from pipeline.answer.answers import Answers
from pipeline.config import JobConfig
from pipeline.job.worker import Identity
from pipeline.respond.ask import Generations
from pipeline.respond.embedding_responder import EmbeddingResponder
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.generative_service import GenerativeService
from pipeline.respond.reuse import Elsewhere


def responder_for(
    job: JobConfig,
    service: GenerativeService | EmbeddingService,
    identity: Identity,
    elsewhere: Elsewhere[Generations] | None = None,
) -> GenerativeResponder | EmbeddingResponder:
    """Of equal rows, it computes one, where the job wants that; other jobs' rows are none of its.

    elsewhere: what the job's other workers have answered."""
    nothing = pa.schema([])
    named = identity.model_id, identity.fingerprint, nothing
    if isinstance(service, EmbeddingService):
        return EmbeddingResponder(service, Answers(*named, "embed", kernels=identity.kernels))
    answers = Answers(
        *named,
        vocabulary=service.vocabulary,
        formats=service.formats,
        kernels=identity.kernels,
        parsed=identity.parsed,
    )
    return GenerativeResponder(service, answers, reuse=job.engine.reuse_answers, elsewhere=elsewhere)
