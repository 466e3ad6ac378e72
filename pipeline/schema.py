"""Requests: OpenAI's fields and llama.cpp's, with their defaults and ranges, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.fields import Content, Input, Integer, Prompt, Role, Stops, Text
from pipeline.json_values import plain, short


class _Fields(BaseModel):
    """Each description completes the sentence "<field> must be ..."."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Message(_Fields):
    """One message of a chat. `developer` is today's name of `system`; content parts come joined."""

    role: Role = Field(description="one of system, developer, user, assistant, tool")
    content: Content = Field(description="a string or a list of text parts")
    name: str | None = Field(None, description="a string")
    tool_call_id: str | None = Field(None, description="a string")


class _AnyRequest(_Fields):
    model: str = Field("local", description='a string: "local" or the id of the model that the job serves')
    user: str | None = Field(None, description="a string")


class GenerationFields(_AnyRequest):
    """What a chat and a completion have in common."""

    max_tokens: Integer = Field(256, ge=1, description="an integer from 1 to the model's context limit")
    temperature: float = Field(0.8, ge=0, le=2, description="a number from 0 to 2")
    top_p: float = Field(0.95, ge=0, le=1, description="a number from 0 to 1")
    top_k: Integer = Field(40, ge=0, description="an integer from 0 (all tokens) up")
    min_p: float = Field(0.05, ge=0, le=1, description="a number from 0 to 1")
    # Beyond these bounds float32 logits overflow, and no token is left to draw.
    repeat_penalty: float = Field(1.1, ge=0.1, le=10, description="a number from 0.1 to 10")
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="a number from -2 to 2")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="a number from -2 to 2")
    stop: Stops = ()
    seed: Integer | None = Field(None, ge=-(2**63), lt=2**63, description="an integer of 64 bits")
    metadata: dict[str, Any] | None = Field(None, description="a mapping of names to values")


class ChatRequest(GenerationFields):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, description="a list of at least one message")


class CompletionRequest(GenerationFields):
    """`POST /v1/completions`. Its prompt is one text, or one text's token ids."""

    prompt: Prompt


class EmbeddingRequest(_AnyRequest):
    """`POST /v1/embeddings`. `input` is a Text, or a list of them."""

    input: Input
    dimensions: Integer | None = Field(
        None, ge=1, description="an integer from 1 to the model's vector length"
    )
    encoding_format: Literal["float", "base64"] = Field("float", description='"float" or "base64"')

    @property
    def single(self) -> bool:
        """Whether the row asked with one text rather than with a list of them."""
        return not isinstance(self.input, list)

    @property
    def inputs(self) -> list[Text]:
        """What is to be embedded, one vector each."""
        return self.input if isinstance(self.input, list) else [self.input]


Request = ChatRequest | CompletionRequest | EmbeddingRequest

REQUESTS: Mapping[Endpoint, type[Request]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
}
CONTENT: Mapping[Endpoint, str] = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
}
"""The field that an endpoint can't do without."""

# OpenAI's fields that are not served, each with the values that ask for nothing.
_UNSERVED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "prediction": (),
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
}
OTHER_NAMES: Mapping[str, str] = {"max_completion_tokens": "max_tokens"}
"""Fields with two names, the older one last."""


def fields_of(endpoint: Endpoint) -> frozenset[str]:
    """The names that a request to `endpoint` may bear, other names of a field included."""
    names = frozenset(REQUESTS[endpoint].model_fields)
    return names | {other for other, name in OTHER_NAMES.items() if name in names}


SERVED_FIELDS: frozenset[str] = frozenset().union(*map(fields_of, REQUESTS))
KNOWN_FIELDS: frozenset[str] = SERVED_FIELDS | frozenset(_UNSERVED)
"""Every name by which a column means a request field: the served ones, and those refused by name."""


def parse_request(endpoint: Endpoint, body: Mapping[str, Any]) -> Request:
    """The request that `body` makes to `endpoint`. A null counts as absent, at any depth.

    Raises RowError (invalid_request, unsupported_parameter); its param is the path of what is wrong
    ("messages[0].role"), its message says what was wrong and what is allowed.
    """
    fields = plain(dict(body))
    _refuse_unserved(endpoint, fields)
    for other, name in OTHER_NAMES.items():
        if other in fields and fields.get(name, fields[other]) != fields[other]:
            raise RowError("invalid_request", f"{name} and {other} are the same field, but differ", other)
    renamed = {name: other for other, name in OTHER_NAMES.items() if other in fields}
    try:
        served = {OTHER_NAMES.get(k, k): v for k, v in fields.items() if k not in _UNSERVED}
        return REQUESTS[endpoint].model_validate(served)
    except ValidationError as error:
        raise _row_error(error.errors(include_url=False)[0], renamed) from None


def _refuse_unserved(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    served = fields_of(endpoint)
    for name in sorted(fields.keys() - served):
        if any(_same(fields[name], harmless) for harmless in _UNSERVED.get(name, ())):
            continue
        raise RowError("unsupported_parameter", _refusal(endpoint, name, served), name)


def _refusal(endpoint: Endpoint, name: str, served: frozenset[str]) -> str:
    if name == "stream":
        return "a batch row can't stream: stream must be false or absent"
    if name in _UNSERVED:
        return f"{name} is not supported yet; supported for {endpoint}: {', '.join(sorted(served))}"
    return f"{name} is not a field of {endpoint}; supported: {', '.join(sorted(served))}"


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _row_error(error: ErrorDetails, renamed: Mapping[str, str]) -> RowError:
    context = error.get("ctx", {}) if error["type"] == "wrong" else {}
    loc = (renamed.get(str(error["loc"][0]), error["loc"][0]), *error["loc"][1:])
    param = _path(loc) + context.get("at", "")
    if error["type"] == "missing":
        return RowError("invalid_request", f"{param} is required", param)
    if error["type"] == "extra_forbidden":
        supported = ", ".join(Message.model_fields)
        return RowError("unsupported_parameter", f"{param} is not supported; supported: {supported}", param)
    reason = context.get("reason") or f"must be {_allowed(error['loc'])}, not {short(error['input'])}"
    return RowError(context.get("code", "invalid_request"), f"{param} {reason}", param)


def _path(loc: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return path.removeprefix(".")


def _allowed(loc: tuple[int | str, ...]) -> str:
    if len(loc) == 2 and loc[0] == "messages":
        return 'a message such as {"role": "user", "content": "..."}'
    for model in (Message, *REQUESTS.values()):
        field = model.model_fields.get(str(loc[-1]))
        if field and field.description:
            return field.description
    return "of another type"
