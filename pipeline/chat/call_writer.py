"""Tool calls in the form of a model, for templates that leave it to others to write earlier ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.chat.tool_forms import ToolForm


def write_calls(form: ToolForm, calls: Sequence[Mapping[str, Any]]) -> str | None:
    """calls: as in a message, their arguments as objects. None for a form that templates write themselves."""
    functions = [call["function"] for call in calls]
    if form.kind == "python":
        texts = [_python(call["name"], call["arguments"]) for call in functions]
    elif form.kind == "json":
        texts = [_json(form, call["name"], call["arguments"]) for call in functions]
    else:
        return None
    between = form.separator or "\n"
    if form.is_list or form.kind == "python":
        inside = (", " if form.is_list else between).join(texts)
        return form.begin + (f"[{inside}]" if form.is_list else inside) + form.end
    return between.join(f"{form.begin}{text}{form.end}" for text in texts)


def _json(form: ToolForm, name: str, arguments: Any) -> str:
    call = {name: arguments} if form.by_name else {form.name_key: name, form.arguments_key: arguments}
    return json.dumps({form.wrapper: call} if form.wrapper else call, ensure_ascii=False)


def _python(name: str, arguments: Mapping[str, Any]) -> str:
    values = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({', '.join(values)})"
