"""The form of a tool call is told from the chat template."""

from __future__ import annotations

import pytest

from pipeline.text.tool_calls import GENERIC, GRANITE, HERMES, LLAMA, MISTRAL, ToolForm, form_of

LOOP = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "form"),
    [
        # Qwen's, in which quotes and line breaks are escaped; Hermes' own, which ends its lines for real.
        (
            LOOP + r"""{{- "return <tool_call></tool_call>:\n<tool_call>\n{\"name\": <function-name>}" }}""",
            HERMES,
        ),
        (LOOP + """{{- "<tool_call>\n" }}{{- '{"name": <function-name>}\n' }}""", HERMES),
        # Qwen3-Coder's and GLM's are XML within the same mark.
        (LOOP + "<tool_call>\n<function=name>\n<parameter=a>", GENERIC),
        (LOOP + "<tool_call>{function-name}\n<arg_key>a</arg_key>", GENERIC),
        (LOOP + """{{- "[TOOL_CALLS][" }}""", MISTRAL),
        (LOOP + """{{- "[TOOL_CALLS] [" }}""", MISTRAL),
        (LOOP + """{{- "[TOOL_CALLS]" + name + "[ARGS]" }}""", GENERIC),
        (LOOP + "respond only with <|tool_call|> followed by a JSON list of tools used.", GRANITE),
        (LOOP + """Respond in the format {"name": function name, "parameters": dictionary}.""", LLAMA),
        (LOOP, GENERIC),
        ("{% generation %}{{ tools }}{% endgeneration %}", GENERIC),
        ("{{ messages[0].content }} <tool_call>\n{'name': 'no tools here'}", None),
        ("{# tools #}{{ 'tools' }}", None),
        ("{% set tools = 1 %}", None),
        ("{% for", None),
        ("", None),
        (None, None),
    ],
)
def test_the_form_of_a_template(template: str | None, form: ToolForm | None) -> None:
    assert form_of(template) == form
