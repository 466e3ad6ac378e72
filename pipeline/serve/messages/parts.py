"""What a message says, whole or streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.answer.answer import Choice, Usage
from pipeline.serve.dialect import Record
from pipeline.serve.exchange import Head

_REASONS: Mapping[str, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def message(head: Head, content: Sequence[Record], usage: Record) -> Record:
    """Before it is known why it ends."""
    return {
        "id": head.id,
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": list(content),
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def stop_of(choice: Choice) -> Record:
    """Why it ended."""
    by_text = choice.finish_reason == "stop" and choice.stop is not None
    reason = "stop_sequence" if by_text else _REASONS[choice.finish_reason]
    return {"stop_reason": reason, "stop_sequence": choice.stop if by_text else None}


def usage_of(usage: Usage) -> Record:
    """Tokens that were not computed are counted apart."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
