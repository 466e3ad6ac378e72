"""Writes docs/fields.md: every request field, served, accepted without meaning, or refused.

python jobs/fields_table.py > docs/fields.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.request.fields import Fields
from pipeline.request.messages import PART_WITHOUT_MEANING, FunctionCall, Message, ToolCall
from pipeline.request.response_format import JsonSchema, ResponseFormat
from pipeline.request.schema import OTHER_NAMES, REQUESTS, SERVED_FIELDS
from pipeline.request.tools import Function, Tool, ToolChoice
from pipeline.request.unserved import UNSERVED, WITHOUT_MEANING

_OBJECTS: dict[str, type[Fields]] = {
    "A message": Message,
    "A call in `tool_calls`": ToolCall,
    "Its `function`": FunctionCall,
    "A tool": Tool,
    "A tool's `function`": Function,
    "`response_format`": ResponseFormat,
    "Its `json_schema`": JsonSchema,
}


_INTRODUCTION = (
    "Made by `python jobs/fields_table.py > docs/fields.md`; a test compares it with the code.",
    "A null is an absent field. What is on none of these lists is refused by name.",
    "In a bare row, a column with the name of a served or refused field is that field; any other is data.",
)


def page() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Request fields"
    yield ""
    yield from _INTRODUCTION
    rows = {endpoint: list(_fields(request)) for endpoint, request in REQUESTS.items()}
    chats, completions, _ = rows.values()
    common = [row for row in chats if row in completions]
    tables = {"chats and completions": common}
    tables |= {endpoint: [row for row in found if row not in common] for endpoint, found in rows.items()}
    for title, found in tables.items():
        yield from ("", f"## Served: {title}", "", "| field | is | default |", "|---|---|---|", *found)
    yield from ("", "## Other names", "", "| name | field |", "|---|---|")
    for other, name in OTHER_NAMES.items():
        only = " (1 alone: no penalty)" if other == "repetition_penalty" else ""
        yield f"| `{other}` | `{name}`{only} |"
    yield from ("", "## Accepted without meaning", "", "Any value: no answer depends on it.", "")
    yield from ("| field | why |", "|---|---|")
    yield from (f"| `{name}` | {why} |" for name, why in WITHOUT_MEANING.items())
    yield from _unserved()
    yield from _objects()


def _fields(model: type[Fields]) -> Iterator[str]:
    for name, field in sorted(model.model_fields.items()):
        default = "required" if field.is_required() else _shown(field.default)
        yield f"| `{field.alias or name}` | {_cell(field.description or '')} | {default} |"


def _unserved() -> Iterator[str]:
    yield from (
        "",
        "## Refused, but for values that ask for nothing",
        "",
        "| field | accepted |",
        "|---|---|",
    )
    for name, harmless in sorted(UNSERVED.items()):
        if harmless or name in SERVED_FIELDS:
            yield f"| `{name}` | {', '.join(f'`{json.dumps(value)}`' for value in harmless) or 'none'} |"
    yield ""
    yield "Fields of another endpoint (`tools` of a completion) are refused with the same exceptions."
    yield "`best_of` may be `n`. `add_special_tokens` may be true for a completion, false for a chat."
    refused = sorted(
        name for name, harmless in UNSERVED.items() if not harmless and name not in SERVED_FIELDS
    )
    yield from ("", "## Refused", "", f"{_names(refused)}.")


def _objects() -> Iterator[str]:
    yield from (
        "",
        "## Inside messages, tools and formats",
        "",
        "| object | served | without meaning |",
        "|---|---|---|",
    )
    for title, model in _OBJECTS.items():
        served = _names(field.alias or name for name, field in model.model_fields.items())
        yield f"| {title} | {served} | {_names(model.without_meaning)} |"
    yield f"| A text part | `type`, `text` | {_names(PART_WITHOUT_MEANING)} |"
    yield ""
    yield "In a message, `refusal` stands for an absent `content`, `reasoning` is `reasoning_content`, and"
    yield "`prefix` may be false. A text part may be a `refusal` as well."


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(default: Any) -> str:
    if isinstance(default, ToolChoice):
        default = default.mode
    if default is None or default in ((), [], {}):
        return "none"
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    print(page(), end="")
