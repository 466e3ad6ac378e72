"""A completion's list of prompts, each of which is a request of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.request.schema import CompletionRequest, Request, parse_request
from pipeline.respond.together import at_prompt

MOST_CHOICES = 1024
"""Of one request, all prompts together."""


def requests_of(endpoint: Endpoint, fields: Mapping[str, Any]) -> tuple[Request, ...]:
    """One request for each prompt that is listed. Raises RowError as `parse_request`, with the prompt's
    place."""
    prompts = _listed(fields.get("prompt"))
    if endpoint != "/v1/completions" or len(prompts) < 2:
        return (parse_request(endpoint, fields),)
    first = parse_request(endpoint, {**fields, "prompt": "?"})
    assert isinstance(first, CompletionRequest)
    if len(prompts) * first.n > MOST_CHOICES:
        asked = f"{len(prompts)} prompts with {first.n} choices each"
        reason = f"prompt: {asked}: at most {MOST_CHOICES} choices are made for a request"
        raise RowError("invalid_request", reason, "prompt")
    if first.label_logprobs:
        raise RowError("invalid_request", "label_logprobs needs a single prompt", "label_logprobs")
    return tuple(
        first.model_copy(update={"prompt": _prompt(endpoint, prompts, at)}) for at in range(len(prompts))
    )


def _listed(prompts: Any) -> list[Any]:
    """A list of numbers is one prompt, of tokens."""
    if not isinstance(prompts, list) or not any(isinstance(prompt, str | list) for prompt in prompts):
        return []
    return prompts


def _prompt(endpoint: Endpoint, prompts: list[Any], at: int) -> Any:
    with at_prompt(at):
        request = parse_request(endpoint, {"prompt": prompts[at]})
    assert isinstance(request, CompletionRequest)
    return request.prompt
