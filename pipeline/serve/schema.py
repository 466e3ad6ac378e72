"""The request bodies in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pipeline.config import Endpoint
from pipeline.request.schema import CONTENT, REQUESTS, EmbeddingRequest


def body_schema(endpoint: Endpoint) -> dict[str, Any]:
    """Each field with its meaning in words; the request's own model checks the values."""
    model = REQUESTS[endpoint]
    fields = {name: {"description": info.description or name} for name, info in model.model_fields.items()}
    if model is not EmbeddingRequest:
        fields["stream"] = {"description": "true or false"}
        fields["stream_options"] = {"description": "a mapping with include_usage, where stream is true"}
    schema = {"type": "object", "properties": fields, "required": [CONTENT[endpoint]]}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
