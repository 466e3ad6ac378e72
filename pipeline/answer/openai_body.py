"""Output rows as the bodies of OpenAI's responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.answer.answer import Answer
from pipeline.answer.columns import columns_of
from pipeline.answer.delta import CallDelta, Delta
from pipeline.request.schema import ChatRequest, Request

Record = dict[str, Any]

_UNKNOWN = -9999.0
_HEAD = ("id", "object", "created", "model", "system_fingerprint")


def body_of(
    request: Request, answer: Answer, *, id: str, created: int, model: str, fingerprint: str
) -> Record:
    """The body of an answer, as `to_openai` gives it. created: seconds since 1970. fingerprint: OpenAI's
    system_fingerprint."""
    head = {"id": id, "created": created, "model": model, "system_fingerprint": fingerprint}
    return to_openai(head | columns_of(request, answer))


def chunk_choice(request: Request, delta: Delta) -> Record:
    """A delta as a choice of a chunk: of `chat.completion.chunk`, or of a completion's `text_completion`.

    The role, which a chat's first delta has, is not in it."""
    if not isinstance(request, ChatRequest):
        return _completion_choice(
            {
                "index": delta.choice,
                "text": delta.text,
                "finish_reason": delta.finish_reason,
                "logprobs": delta.logprobs,
            }
        )
    added = {
        "content": delta.text,
        "reasoning_content": delta.reasoning,
        "tool_calls": [_call_delta(call) for call in delta.calls],
    }
    return {
        "index": delta.choice,
        "delta": {name: value for name, value in added.items() if value},
        "finish_reason": delta.finish_reason,
        "logprobs": delta.logprobs,
    }


def to_openai(record: Mapping[str, Any]) -> Record:
    """The body of an output row: ChatCompletion, Completion, CreateEmbeddingResponse, or {"error": ...}.

    Keys that OpenAI always sends are there, null or not. Beside OpenAI's own, a chat's message may have
    `reasoning_content`, and a body `label_logprobs`. Vectors are lists of floats, whatever encoding_format
    the row asked for. The first token of an echoed prompt, which nothing predicts, has OpenAI's mark of an
    unknown log-probability: its types allow no null there.
    """
    if record.get("error"):
        return {"error": {name: record["error"][name] for name in ("message", "type", "param", "code")}}
    if record["object"] == "list":
        return _embedding_response(record)
    choice = _chat_choice if record["object"] == "chat.completion" else _completion_choice
    body = {name: record[name] for name in _HEAD}
    body |= {"choices": [choice(found) for found in record["choices"]], "usage": record["usage"]}
    labels = record.get("label_logprobs")
    return body | ({"label_logprobs": labels} if labels is not None else {})


def _chat_choice(choice: Mapping[str, Any]) -> Record:
    message, logprobs = choice["message"], choice.get("logprobs")
    beside = {name: message.get(name) for name in ("reasoning_content", "tool_calls")}
    return {
        "index": choice["index"],
        "message": {name: message.get(name) for name in ("role", "content", "refusal")}
        | {name: value for name, value in beside.items() if value is not None},
        "finish_reason": choice["finish_reason"],
        "logprobs": logprobs and {name: logprobs[name] for name in ("content", "refusal")},
    }


def _call_delta(call: CallDelta) -> Record:
    if call.id is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def _completion_choice(choice: Mapping[str, Any]) -> Record:
    return {
        "index": choice["index"],
        "text": choice["text"],
        "finish_reason": choice["finish_reason"],
        "logprobs": choice.get("logprobs") and _completion_logprobs(choice["logprobs"]),
    }


def _completion_logprobs(logprobs: Mapping[str, Any]) -> Record:
    return {
        "tokens": logprobs["tokens"],
        "text_offset": logprobs["text_offset"],
        "token_logprobs": [_UNKNOWN if value is None else value for value in logprobs["token_logprobs"]],
        "top_logprobs": [_by_text(tokens or ()) for tokens in logprobs["top_logprobs"]],
    }


def _by_text(tokens: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Of several tokens with one text, the likeliest."""
    found: dict[str, float] = {}
    for token in tokens:
        found.setdefault(token["token"], token["logprob"])
    return found


def _embedding_response(record: Mapping[str, Any]) -> Record:
    data = record.get("data") or [{"index": 0, "embedding": record["embedding"]}]
    usage = record["usage"]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": d["index"], "embedding": [float(v) for v in d["embedding"]]}
            for d in data
        ],
        "model": record["model"],
        "usage": {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["total_tokens"]},
    }
