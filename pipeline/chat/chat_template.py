"""The chat template of a model, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pipeline.errors import RowError


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for training: here its inside is just text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> Environment:
    """Jinja with the names and filters of Hugging Face."""
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    found.filters["tojson"] = _to_json
    found.globals.update(raise_exception=_raise, strftime_now=_now)
    return found


# SmolLM3 tells tools that are called by XML from others.
TOOL_VARIABLES = ("tools", "xml_tools")


class ChatTemplate:
    """Renders messages as the model's makers meant."""

    def __init__(self, source: str | None, bos_text: str = "", eos_text: str = "") -> None:
        """Raises RowError where the model has no template, or one that isn't Jinja."""
        if not source:
            raise RowError("invalid_request", "the model has no chat template: ask with prompt instead")
        self.source = source
        try:
            jinja = environment()
            self._template = jinja.from_string(source, globals={"bos_token": bos_text, "eos_token": eos_text})
            self.reads = frozenset(meta.find_undeclared_variables(jinja.parse(source)))
            """The names of the variables that the template reads: `messages`, `enable_thinking` ..."""
            self._tools = next((name for name in TOOL_VARIABLES if name in self.reads), TOOL_VARIABLES[0])
        except TemplateError as error:
            raise RowError("invalid_request", f"the model's chat template is not Jinja: {error}") from None

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The text up to where the assistant goes on.

        options: more variables of the template. Raises RowError where the template refuses.
        """
        given = {**(options or {}), "messages": messages, "add_generation_prompt": True}
        try:
            return self._template.render({**given, self._tools: tools or None})
        except Exception as error:  # Jinja lets through whatever an expression raises
            refusal = error
        if not tools:  # Hugging Face says None where there are none, llama-server nothing.
            with suppress(Exception):
                return self._template.render(given)
        reason = f"the model's chat template refused the messages: {refusal}"
        raise RowError("invalid_request", reason, "messages")


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: Any) -> list[Any]:
    """What Jinja's map and select give."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
