"""What a request says about the text of its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.request.schema import ChatRequest, CompletionRequest
from pipeline.request.tools import Tool

Kind = Literal["json_schema", "json_object", "regex", "grammar", "choice", "tools"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """Equal constraints allow equal texts.

    text: the schema or the `Calls` as JSON, the regular expression or the grammar. choices: of the kind
    "choice". param: where the request says so, for errors.
    """

    kind: Kind
    text: str = ""
    choices: tuple[str, ...] = ()
    param: str | None = None


def constraint_of(request: ChatRequest | CompletionRequest) -> Constraint | None:
    """None where any text will do."""
    if isinstance(request, ChatRequest) and request.tool_choice.mode == "required":
        return _calls(request)
    if request.response_format:
        return _json(request)
    if request.guided_choice:
        return Constraint("choice", choices=request.guided_choice, param="guided_choice")
    if request.guided_regex:
        return Constraint("regex", request.guided_regex, param="guided_regex")
    if request.grammar:
        return Constraint("grammar", request.grammar, param="grammar")
    return None


def _json(request: ChatRequest | CompletionRequest) -> Constraint:
    assert request.response_format
    schema, param = request.response_format.schema_and_path
    if isinstance(request, ChatRequest) and request.offered:
        # The model may call tools, and what it says otherwise is as the schema says.
        return Constraint("tools", _dump(_record(request, None) | {"else": schema}), param=param)
    kind: Kind = "json_object" if request.response_format.type == "json_object" else "json_schema"
    return Constraint(kind, _dump(schema), param=param)


def _calls(request: ChatRequest) -> Constraint:
    return Constraint("tools", _dump(_record(request, request.tool_choice.name)), param="tools")


def _record(request: ChatRequest, name: str | None) -> dict[str, Any]:
    calls = [
        {"index": i, "name": tool.function.name, "schema": _parameters(tool)}
        for i, tool in enumerate(request.tools)
        if name in (None, tool.function.name)
    ]
    # Several calls only where they are asked for: small models would never stop calling.
    return {"calls": calls, "several": bool(request.parallel_tool_calls) and name is None}


def _parameters(tool: Tool) -> dict[str, Any]:
    """A function without parameters takes none; so OpenAI says."""
    if tool.function.parameters is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "object"} | tool.function.parameters


def _dump(value: Any) -> str:
    """Keys keep their order, which is the order that the answer's keys come in."""
    return json.dumps(_whole(value), ensure_ascii=False, separators=(",", ":"))


def _whole(value: Any) -> Any:
    """The compiler wants integers where a schema counts, which Parquet writers may have made floats."""
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole else value
