"""Answers as the columns of a response file."""

from __future__ import annotations

from typing import Any

from pipeline.answer.answer import Answer, Choice, Embedded, Generated, ToolCall, Usage
from pipeline.answer.label_columns import label_columns
from pipeline.request.schema import ChatRequest, EmbeddingRequest, Request

Record = dict[str, Any]


def columns_of(request: Request, answer: Answer) -> Record:
    """The columns that the answer itself fills; `object` tells which of OpenAI's responses it is."""
    if isinstance(answer, Embedded):
        return _embedded(answer, single=isinstance(request, EmbeddingRequest) and request.single)
    if isinstance(request, ChatRequest):
        written = [_chat_choice(index, choice) for index, choice in enumerate(answer.choices)]
        head = {"object": "chat.completion", "text": answer.choices[0].content}
    else:
        written = [_text_choice(index, choice, answer.echo) for index, choice in enumerate(answer.choices)]
        head = {"object": "text_completion", "text": written[0]["text"]}
    return head | {"choices": written} | _generated(answer)


def usage_columns(usage: Usage) -> Record:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _generated(answer: Generated) -> Record:
    """The columns that chats and completions have in common."""
    return {
        "finish_reason": answer.choices[0].finish_reason,
        "complete": answer.complete,
        **label_columns(answer.decisions),
        "usage": usage_columns(answer.usage),
        "seconds": answer.seconds,
        "reused": answer.reused,
    }


def _chat_choice(index: int, choice: Choice) -> Record:
    message = {
        "role": "assistant",
        "content": choice.content,
        "reasoning_content": choice.reasoning,
        "tool_calls": [_call(call) for call in choice.calls] or None,
    }
    return {
        "index": index,
        "message": message,
        "finish_reason": choice.finish_reason,
        "logprobs": choice.logprobs,
    }


def _text_choice(index: int, choice: Choice, echo: str) -> Record:
    return {
        "index": index,
        "text": echo + (choice.content or ""),
        "finish_reason": choice.finish_reason,
        "logprobs": choice.logprobs,
    }


def _call(call: ToolCall) -> Record:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _embedded(answer: Embedded, *, single: bool) -> Record:
    data = [{"index": i, "embedding": vector} for i, vector in enumerate(answer.vectors)]
    return {
        "object": "list",
        "embedding": answer.vectors[0],
        "data": None if single else data,
        "usage": usage_columns(answer.usage),
    }
