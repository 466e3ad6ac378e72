"""Fields that are known, but not served: refused by name where they ask for something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint
from pipeline.errors import RowError

WITHOUT_MEANING: Mapping[str, str] = {
    "cache_control": "asks for a cache; what rows share is decoded once without it",
    "cache_prompt": "asks for a cache",
    "cache_salt": "names a cache",
    "id_slot": "names a slot of llama-server",
    "metadata": "is kept beside a request; carry columns along by output.keep",
    "n_keep": "is for contexts that are shifted",
    "prediction": "makes an answer faster, not other",
    "priority": "orders requests",
    "prompt_cache_key": "names a cache",
    "prompt_cache_options": "is of a cache",
    "prompt_cache_retention": "is of a cache",
    "request_id": "names a request; custom_id names a row",
    "safety_identifier": "names a user",
    "service_tier": "chooses a price",
    "store": "keeps the answer at OpenAI",
    "stream_options": "says how to stream, which a row doesn't",
    "timeout": "is the client's; retry.row_deadline is the row's",
    "usage": "asks for counts, which every answer has",
    "user": "names a user",
}
"""Fields that change no answer, and why: accepted with any value. Columns of these names are data."""

UNSERVED: Mapping[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "dynatemp_exponent": (1,),
    "dynatemp_range": (0,),
    "early_stopping": (False,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "image_data": ([],),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "lora": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_keep": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "n_probs": (0,),
    "parallel_tool_calls": (True, False),
    "penalize_nl": (False,),
    "post_sampling_probs": (False,),
    "reasoning_effort": (),
    "repeat_last_n": (64,),
    "response_fields": ([],),
    "response_format": ({"type": "text"},),
    "return_progress": (False,),
    "return_token_ids": (False,),
    "return_tokens": (False,),
    "return_tokens_as_token_ids": (False,),
    "safe_prompt": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "stream": (False,),
    "suffix": ("",),
    "tfs_z": (1,),
    "timings_per_token": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "top_n_sigma": (-1, 0),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
} | dict.fromkeys(
    (
        # OpenAI's of late, llama-server's, vLLM's. A column of such a name asks for something, too.
        "moderation "
        "chat_template json_schema reasoning_format samplers "
        "guided_grammar guided_json guided_decoding_backend prompt_logprobs structured_outputs "
        "truncate_prompt_tokens"
    ).split(),
    (),
)
"""Fields that an endpoint, or all of them, don't serve, each with the values that ask for nothing."""

_SERVED_ELSEWHERE = frozenset(
    "chat_template_kwargs echo logit_bias logprobs n parallel_tool_calls reasoning_effort response_format "
    "tool_choice tools top_logprobs".split()
)


def refuse_unserved(endpoint: Endpoint, fields: Mapping[str, Any], served: frozenset[str]) -> None:
    """Raises RowError (unsupported_parameter) for a field that asks for what `endpoint` doesn't serve."""
    for name in sorted(fields.keys() - served - WITHOUT_MEANING.keys()):
        if any(_same(fields[name], harmless) for harmless in UNSERVED.get(name, ())):
            continue
        if name == "add_special_tokens" and fields[name] is (endpoint == "/v1/completions"):
            continue  # a chat's come from its template
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
