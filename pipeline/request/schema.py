"""Requests: OpenAI's fields and llama.cpp's, with their defaults and ranges, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.request.fields import (
    MAX_CHOICES,
    Choices,
    Fields,
    Input,
    Integer,
    Prompt,
    TemplateOptions,
    Text,
)
from pipeline.request.json_values import plain
from pipeline.request.messages import Message
from pipeline.request.refusals import row_error
from pipeline.request.response_format import Format, ResponseFormat
from pipeline.request.sampling_fields import SamplingFields
from pipeline.request.tools import Choice, Tool, ToolChoice, Tools
from pipeline.request.unserved import UNSERVED, refuse_unserved

NO_PENALTY = 1.0
"""repeat_penalty by default where the answer has a given form, or tools are offered.

A penalty on what the prompt and the answer hold bends what is to be copied from the prompt, JSON's own marks,
and the names of tools (`jobs/repeat_penalty.py` measures it)."""


class _AnyRequest(Fields):
    model: str = Field("local", description='a string: "local" or the id of the model that the job serves')


class GenerationFields(_AnyRequest, SamplingFields):
    """What a chat and a completion have in common."""

    n: Integer = Field(1, ge=1, le=128, description="an integer from 1 to 128")
    response_format: Format = Field(None, description=ResponseFormat.shape)
    guided_choice: Choices = Field((), description=f"a list of at most {MAX_CHOICES} strings")
    guided_regex: str | None = Field(None, description="a string")
    grammar: str | None = Field(None, description="a string")
    label_logprobs: bool = Field(False, description="true or false")

    @property
    def top(self) -> int | None:
        """How many of the likeliest tokens to report at each place; None: no log-probabilities."""
        raise NotImplementedError

    @property
    def constraints(self) -> list[str]:
        """The fields that say which texts may be answered."""
        asked = [name for name in ("guided_choice", "guided_regex", "grammar") if getattr(self, name)]
        return ["response_format", *asked] if self.response_format else asked

    @property
    def has_given_form(self) -> bool:
        """Whether the request says what the answer looks like. That it is some JSON object says little."""
        form = self.response_format
        return bool(self.constraints) and (form is None or form.has_schema)

    def with_defaults(self) -> Self:
        """With the defaults that depend on other fields."""
        if "repeat_penalty" in self.model_fields_set or not self.has_given_form:
            return self
        return self.model_copy(update={"repeat_penalty": NO_PENALTY})

    def refuse_conflicts(self) -> None:
        """Raises RowError where two fields contradict each other, or one needs another that is absent."""
        asked = self.constraints
        if len(asked) > 1:
            raise _conflict(asked[1], f"can't be combined with {asked[0]}: an answer has one constraint")
        if self.min_tokens > self.max_tokens:
            raise _conflict("min_tokens", f"must be at most max_tokens, which is {self.max_tokens}")
        for name in ("ignore_eos", "min_tokens"):
            if asked and getattr(self, name):
                raise _conflict(name, f"can't be combined with {asked[0]}, which decides where it ends")
        if self.label_logprobs and not asked:
            needed = "something that leaves few answers, or few values: guided_choice or response_format"
            raise _conflict("label_logprobs", f"needs {needed}")


class ChatRequest(GenerationFields):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, description="a list of at least one message")
    logprobs: bool = Field(False, description="true or false")
    top_logprobs: Integer = Field(0, ge=0, le=20, description="an integer from 0 to 20")
    tools: Tools = Field([], description="a list of at most 128 tools")
    tool_choice: Choice = Field(ToolChoice(), description="one of none, auto, required, or a function")
    parallel_tool_calls: bool | None = Field(None, description="true or false")
    chat_template_kwargs: TemplateOptions = Field({}, description="a mapping")
    reasoning_effort: str | None = Field(None, min_length=1, description='a string such as "low"')

    @property
    def template_options(self) -> dict[str, Any]:
        """The variables that the request sets for the chat template."""
        effort = {"reasoning_effort": self.reasoning_effort} if self.reasoning_effort else {}
        return self.chat_template_kwargs | effort

    @property
    def top(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model hears of."""
        return [] if self.tool_choice.mode == "none" else self.tools

    @property
    def has_given_form(self) -> bool:
        return super().has_given_form or bool(self.offered)

    def refuse_conflicts(self) -> None:
        super().refuse_conflicts()
        names = [tool.function.name for tool in self.tools]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise _conflict(f"tools[{i}].function.name", f"is {name} once more")
        effort = self.reasoning_effort
        if effort and self.chat_template_kwargs.get("reasoning_effort", effort) != effort:
            other = "chat_template_kwargs.reasoning_effort"
            raise _conflict("reasoning_effort", f"is {effort}, but {other} says otherwise")
        if self.top_logprobs and not self.logprobs:
            raise _conflict("top_logprobs", "needs logprobs: true")
        if self.tool_choice.mode == "required":
            self._refuse_bad_choice(names)
        if self.offered and self.constraints and self.constraints != ["response_format"]:
            raise _conflict(self.constraints[0], "can't be combined with tools")

    def _refuse_bad_choice(self, names: list[str]) -> None:
        if not names:
            raise _conflict("tool_choice", "needs tools")
        if self.tool_choice.name and self.tool_choice.name not in names:
            known = ", ".join(names)
            raise _conflict(
                "tool_choice.function.name", f"must be one of {known}, not {self.tool_choice.name}"
            )
        for name in (*self.constraints, *(n for n in ("ignore_eos", "min_tokens") if getattr(self, n))):
            raise _conflict(name, "can't be combined with a tool_choice that requires a call")


class CompletionRequest(GenerationFields):
    """`POST /v1/completions`. Its prompt is one text, or one text's token ids."""

    prompt: Prompt = Field(description="a single text or a list of token ids, or a list of one of them")
    logprobs: Annotated[Integer | None, BeforeValidator(lambda value: None if value is False else value)] = (
        Field(None, ge=0, le=5, description="an integer from 0 to 5")
    )
    echo: bool = Field(False, description="true or false")

    @property
    def top(self) -> int | None:
        return self.logprobs


class EmbeddingRequest(_AnyRequest):
    """`POST /v1/embeddings`. `input` is a Text, or a list of them."""

    input: Input = Field(description="a text or a list of token ids, not empty, or a list of either")
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

    @property
    def names(self) -> list[str]:
        """The paths of `inputs`."""
        return ["input"] if self.single else [f"input[{i}]" for i in range(len(self.inputs))]


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

OTHER_NAMES: Mapping[str, str] = {
    "max_completion_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "random_seed": "seed",
    "repetition_penalty": "repeat_penalty",
}
"""Other names of fields: OpenAI's of late, llama-server's, Mistral's, Hugging Face's.

Hugging Face's penalty looks back over all tokens, llama.cpp's over some: only 1, which is none, is the same.
"""


def fields_of(endpoint: Endpoint) -> frozenset[str]:
    """The field names that a request to `endpoint` may use, aliases included."""
    names = frozenset(REQUESTS[endpoint].model_fields)
    return names | {other for other, name in OTHER_NAMES.items() if name in names}


SERVED_FIELDS: frozenset[str] = frozenset().union(*map(fields_of, REQUESTS))
KNOWN_FIELDS: frozenset[str] = SERVED_FIELDS | frozenset(UNSERVED)
"""Every name by which a column means a request field: the served ones, and those refused by name."""


def parse_request(endpoint: Endpoint, body: Mapping[str, Any], *, whole: bool = True) -> Request:
    """The request that `body` makes to `endpoint`. A null counts as absent, at any depth.

    whole: false for a part of a request, whose fields may need others that aren't there.
    Raises RowError (invalid_request, unsupported_parameter); its param is the path of what is wrong
    ("messages[0].role"), its message says what was wrong and what is allowed.
    """
    fields = plain(dict(body))
    served = fields_of(endpoint)
    refuse_unserved(endpoint, fields, served)
    renamed = _renamed(fields)
    model = REQUESTS[endpoint]
    try:
        request = model.model_validate({OTHER_NAMES.get(k, k): v for k, v in fields.items() if k in served})
    except ValidationError as error:
        raise row_error(model, error.errors(include_url=False)[0], renamed) from None
    if isinstance(request, EmbeddingRequest):
        return request
    if whole:
        request.refuse_conflicts()
    return request.with_defaults()


def _renamed(fields: Mapping[str, Any]) -> dict[str, str]:
    """Each field that the row calls by another name, and that name."""
    found: dict[str, str] = {}
    for other, name in OTHER_NAMES.items():
        if other not in fields:
            continue
        first = found.get(name, name)
        if fields.get(first, fields[other]) != fields[other]:
            raise RowError("invalid_request", f"{first} and {other} are the same field, but differ", other)
        found[name] = other
    if fields.get("repetition_penalty", 1) != 1:
        reason = "must be 1, no penalty: repeat_penalty is what llama.cpp has, over the latest tokens only"
        raise RowError("unsupported_parameter", f"repetition_penalty {reason}", "repetition_penalty")
    return found


def _conflict(param: str, reason: str) -> RowError:
    return RowError("invalid_request", f"{param} {reason}", param)
