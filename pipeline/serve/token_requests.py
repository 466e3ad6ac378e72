"""What llama-server's routes of tokens take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from pipeline.request.fields import Fields, whole, wrong
from pipeline.request.json_values import plain, short
from pipeline.request.refusals import row_error

Asked = TypeVar("Asked", bound=Fields)


def _check_content(value: Any) -> Any:
    for i, part in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(part, str) and (type(whole(part)) is not int or not isinstance(value, list)):
            at = f"[{i}]" if isinstance(value, list) else ""
            raise wrong(f"must be a text, or a list of texts and token ids, not {short(part)}", at)
    return [value] if isinstance(value, str) else list(map(whole, value))


def _check_ids(value: Any) -> Any:
    if not isinstance(value, list):
        raise wrong(f"must be a list of token ids, not {short(value)}")
    for i, token in enumerate(value):
        if type(whole(token)) is not int:
            raise wrong(f"must be a token id, not {short(token)}", f"[{i}]")
    return list(map(whole, value))


_TOKENS = {"type": "array", "items": {"type": "integer"}}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "integer"]}}]}


class Tokenize(Fields):
    """`POST /tokenize`."""

    content: Annotated[list[str | int], BeforeValidator(_check_content), WithJsonSchema(_CONTENT)] = Field(
        description="a text, or a list of texts and token ids"
    )
    add_special: bool = Field(False, description="true or false")
    parse_special: bool = Field(True, description="true or false")
    with_pieces: bool = Field(False, description="true or false")


class Detokenize(Fields):
    """`POST /detokenize`."""

    tokens: Annotated[list[int], BeforeValidator(_check_ids), WithJsonSchema(_TOKENS)] = Field(
        description="a list of token ids"
    )


def parsed(model: type[Asked], body: Mapping[str, Any]) -> Asked:
    """A null counts as absent. Raises RowError, with the field at fault."""
    try:
        return model.model_validate(plain(dict(body)))
    except ValidationError as error:
        raise row_error(model, error.errors(include_url=False)[0], {}) from None
