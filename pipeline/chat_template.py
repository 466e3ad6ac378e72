"""The chat template of a GGUF, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import RowError


class ChatTemplate:
    """Renders messages as the model's makers meant: the names and filters are those of Hugging Face."""

    def __init__(self, source: str | None, bos_text: str, eos_text: str) -> None:
        """Raises RowError where the model has no template, or one that isn't Jinja."""
        if not source:
            raise RowError("invalid_request", "the model has no chat template: ask with prompt instead")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals.update(
            raise_exception=_raise, strftime_now=_now, bos_token=bos_text, eos_token=eos_text
        )
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise RowError("invalid_request", f"the model's chat template is not Jinja: {error}") from None

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The text up to where the assistant goes on. Raises RowError where the template refuses."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, tools=None)
        except Exception as error:  # Jinja lets through whatever an expression raises
            reason = f"the model's chat template refused the messages: {error}"
            raise RowError("invalid_request", reason, "messages") from None


def _to_json(value: Any, indent: int | None = None) -> str:
    """Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
