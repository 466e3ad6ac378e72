"""The form that an answer must have."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.request.fields import Fields, wrong


class JsonSchema(Fields):
    """OpenAI's wrapper of a schema; the answer keeps to the schema whether `strict` or not."""

    name: str | None = Field(None, description="a string")
    description: str | None = Field(None, description="a string")
    schema_: dict[str, Any] = Field(alias="schema", description="a JSON schema")
    strict: bool | None = Field(None, description="true or false")


class ResponseFormat(Fields):
    """Any text, any JSON object, or what a JSON schema describes.

    `schema` beside json_object is llama-server's.
    """

    shape: ClassVar[str] = 'an object such as {"type": "json_object"}'

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="one of text, json_object, json_schema"
    )
    json_schema: JsonSchema | None = Field(None, description='an object such as {"name": ..., "schema": ...}')
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="a JSON schema")

    @model_validator(mode="after")
    def _agrees(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise wrong("is required", ".json_schema")
        if self.type != "json_schema" and self.json_schema is not None:
            raise wrong('needs the type "json_schema"', ".json_schema")
        if self.type != "json_object" and self.schema_ is not None:
            raise wrong('needs the type "json_object"', ".schema")
        return self

    @property
    def has_schema(self) -> bool:
        return self.json_schema is not None or self.schema_ is not None

    @property
    def schema_and_path(self) -> tuple[dict[str, Any], str]:
        """The JSON schema of the answer, and where it stands in the request."""
        if self.json_schema is not None:
            return self.json_schema.schema_, "response_format.json_schema.schema"
        return self.schema_ or {"type": "object"}, "response_format.schema"


def _unless_any_text(value: ResponseFormat | None) -> ResponseFormat | None:
    return None if value and value.type == "text" else value


Format = Annotated[ResponseFormat | None, AfterValidator(_unless_any_text)]
