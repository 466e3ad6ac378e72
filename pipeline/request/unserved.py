"""Fields that are known, but not served: refused by name where they ask for something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint
from pipeline.errors import RowError

# Fields that an endpoint, or all of them, don't serve, each with the values that ask for nothing.
UNSERVED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "chat_template_kwargs": ({},),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "stream": (False,),
    "stream_options": (),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
} | dict.fromkeys(
    (
        # OpenAI's of late, llama-server's, vLLM's. A column of such a name asks for something, too.
        "moderation prompt_cache_key prompt_cache_options prompt_cache_retention safety_identifier "
        "dynatemp_exponent dynatemp_range json_schema n_predict n_probs repeat_last_n "
        "samplers top_n_sigma "
        "allowed_token_ids bad_words guided_grammar guided_json include_stop_str_in_output length_penalty "
        "prompt_logprobs repetition_penalty skip_special_tokens stop_token_ids structured_outputs "
        "truncate_prompt_tokens use_beam_search"
    ).split(),
    (),
)
_SERVED_ELSEWHERE = frozenset(
    "chat_template_kwargs echo logit_bias logprobs n parallel_tool_calls reasoning_effort response_format "
    "tool_choice tools top_logprobs".split()
)


def refuse_unserved(endpoint: Endpoint, fields: Mapping[str, Any], served: frozenset[str]) -> None:
    """Raises RowError (unsupported_parameter) for a field that asks for what `endpoint` doesn't serve."""
    for name in sorted(fields.keys() - served):
        if any(_same(fields[name], harmless) for harmless in UNSERVED.get(name, ())):
            continue
        if name == "best_of" and "n" in served and _same(fields[name], fields.get("n", 1)):
            continue
        raise RowError("unsupported_parameter", _refusal(endpoint, name, served), name)


def _refusal(endpoint: Endpoint, name: str, served: frozenset[str]) -> str:
    if name == "stream":
        return "a batch row can't stream: stream must be false or absent"
    if name in UNSERVED and name not in _SERVED_ELSEWHERE:
        return f"{name} is not supported yet; supported for {endpoint}: {', '.join(sorted(served))}"
    return f"{name} is not a field of {endpoint}; supported: {', '.join(sorted(served))}"


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)
