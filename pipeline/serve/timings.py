"""How long an answer took, as llama-server tells it."""

from __future__ import annotations

from typing import Any

from pipeline.answer.answer import Generated


def timings(answer: Generated) -> dict[str, Any]:
    """Milliseconds and tokens; of several choices, of all together. Waiting for a slot is not in it."""
    usage = answer.usage
    prompt = usage.prompt_tokens - usage.cached_tokens
    predicted = max(0.0, (answer.seconds or 0.0) - answer.prompt_seconds)
    return {
        "cache_n": usage.cached_tokens,
        **_part("prompt", prompt, answer.prompt_seconds),
        **_part("predicted", usage.completion_tokens, predicted),
    }


def _part(name: str, tokens: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": seconds * 1000,
        f"{name}_per_token_ms": seconds * 1000 / tokens if tokens else 0.0,
        f"{name}_per_second": tokens / seconds if seconds else 0.0,
    }
