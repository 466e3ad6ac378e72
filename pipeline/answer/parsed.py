"""The column `parsed`: answers by the schema, the choices or the function that all rows of a job share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from pipeline.answer.answer import Choice
from pipeline.answer.arrow_types import ArrowType, UnfitError, arrow_type, one_of
from pipeline.request.schema import ChatRequest, EmbeddingRequest, GenerationFields, Request

Form = Literal["json", "choice", "call"]


@dataclass(frozen=True)
class Expected:
    """What a request's answer is. Equal ones may share a column.

    form: a JSON text, one of several texts, or the arguments of a call. schema: as JSON. several: n is not 1.
    """

    form: Form
    schema: str
    several: bool = False

    @classmethod
    def of(cls, request: Request) -> Expected | None:
        """None where nothing says what the answer is."""
        if isinstance(request, EmbeddingRequest):
            return None
        found = _form_and_schema(request)
        return found and cls(found[0], json.dumps(found[1], ensure_ascii=False), request.n != 1)

    @classmethod
    def from_json(cls, text: str) -> Expected:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """The inverse of `from_json`, the same for equal ones."""
        return json.dumps({"form": self.form, "schema": self.schema, "several": self.several})

    @cached_property
    def answer_type(self) -> ArrowType:
        """Of one choice."""
        schema = json.loads(self.schema)
        return one_of(schema["enum"]) if self.form == "choice" else arrow_type(schema)

    @property
    def column_type(self) -> pa.DataType:
        return pa.list_(self.answer_type.type) if self.several else self.answer_type.type

    def parse(self, request: Request, choices: Sequence[Choice]) -> Any:
        """A row's value in the column.

        Null where the row asks for something else, an answer was cut off (a number or a word may look like
        a whole one), or the type can't hold it.
        """
        if Expected.of(request) != self:
            return None
        values = [None if choice.finish_reason == "length" else self._value(choice) for choice in choices]
        return values if self.several else values[0]

    def _value(self, choice: Choice) -> Any:
        text = _text(self.form, choice)
        if text is None:
            return None
        try:
            value = text if self.form == "choice" else json.loads(text, parse_constant=_refuse)
            return None if value is None else self.answer_type.read(value)
        except (ValueError, RecursionError):  # UnfitError and JSON's errors are ValueErrors.
            return None


def _form_and_schema(request: GenerationFields) -> tuple[Form, Any] | None:
    if isinstance(request, ChatRequest) and request.offered:
        return _function(request)
    if request.guided_choice:
        return "choice", {"enum": list(request.guided_choice)}
    if request.response_format:
        return "json", request.response_format.schema_and_path[0]
    return None


def _function(request: ChatRequest) -> tuple[Form, Any] | None:
    """Of the one function that may be called. What an answer in a form beside calls is, nobody can say."""
    chosen = request.tool_choice.name
    tools = [tool for tool in request.offered if chosen in (None, tool.function.name)]
    if len(tools) != 1 or request.response_format:
        return None
    return "call", {"type": "object"} | (tools[0].function.parameters or {})


def _text(form: Form, choice: Choice) -> str | None:
    if form == "call":
        return choice.calls[0].arguments if choice.calls else None
    return choice.content


def _refuse(constant: str) -> Any:
    raise UnfitError(f"{constant} is no JSON")
