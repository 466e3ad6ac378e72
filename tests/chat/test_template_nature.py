"""What a chat template takes is found once, and every chat is rendered so, or refused with the reason."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat.chat_format import ChatFormat, ChatFormats
from pipeline.chat.chat_template import ChatTemplate
from pipeline.chat.template_nature import TemplateNature, nature_of
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest, parse_request

NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
ARGUMENTS = {"city": "Rome", "days": 3}

END = "{% if add_generation_prompt %}[assistant]{% endif %}"
TURNS = "{% for m in messages %}[{{ m.role }}]"
TEXT = TURNS + "{{ m.content }}{% endfor %}" + END
# As SmolVLM's and Idefics3's: a string is gone through letter by letter, and no letter has a type.
PARTS = (
    TURNS + "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endfor %}" + END
)
NEITHER = TURNS + "{% for part in m.content %}{{ part.url }}{% endfor %}{% endfor %}" + END
# Each role in a form of its own, as Mistral Small's system turn.
MIXED = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'user' %}{{ m.content[0].text }}{% else %}{{ m.content + '' }}{% endif %}{% endfor %}"
    + END
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TEXT
)
CALLS = (
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}"
)
TOOLS = "{% if tools %}[tools]{{ tools | tojson }}{% endif %}"


def calling(content: str, calls: str = CALLS) -> str:
    return TOOLS + TURNS + content + calls + "{% endfor %}" + END


# What stands for the text of a turn that only calls. Of the names, each model is one that does so.
NO_CONTENT = {
    "Qwen3, QwQ: null fails": calling("{% if '</think>' in m.content %}{% endif %}{{ m.content }}"),
    "gpt-oss: only absent": calling(
        "{% if 'content' in m %}{% if '<' in m.content %}{% endif %}"
        "{{ m.content or raise_exception('empty') }}{% endif %}"
    ),
    "Granite 3.3, strings are joined": calling("{{ '' + m.content }}"),
    "GLM: null is printed": calling("{{ m.content }}"),
    "DeepSeek R1: null alone shows calls": TURNS
    + "{% if m.content is none %}"
    + CALLS
    + "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    + END,
    "parts": PARTS.replace("{% endfor %}{% endfor %}", "{% endfor %}" + CALLS + "{% endfor %}"),
}
EACH = "{% for c in m.tool_calls or [] %}"
JOINED = EACH + "{{ '<call>' + c.function.name + c.function.arguments }}{% endfor %}"
PRINTED = EACH + "<call>{{ c.function.name }}{{ c.function.arguments }}{% endfor %}"
ARGUMENT_FORMS = {
    "object": CALLS,
    "joined (DeepSeek R1 distills)": JOINED,
    "printed (functionary)": PRINTED,
    "items (Qwen3-Coder)": EACH + "<call>{{ c.function.name }}"
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %}{% endfor %}",
}


formats = lru_cache(ChatFormats)


def rendered(template: str, messages: list[dict[str, Any]], **fields: Any) -> str:
    request = parse_request("/v1/chat/completions", {"messages": messages} | fields)
    assert isinstance(request, ChatRequest)
    chat = formats(template).of(request)
    told = [message.for_template() for message in request.messages]
    return chat.render(told, [tool.for_template() for tool in request.offered], request.template_options)


def refusal(template: str, messages: list[dict[str, Any]]) -> RowError:
    with pytest.raises(RowError) as caught:
        rendered(template, messages)
    return caught.value


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def history(content: Any = None, call_id: str = "call_1", **more: Any) -> list[dict[str, Any]]:
    call = {
        "id": call_id,
        "type": "function",
        "function": {"name": "now", "arguments": json.dumps(ARGUMENTS)},
    }
    said = {} if content == "absent" else {"content": content}
    return [
        user("What time?"),
        {"role": "assistant", "tool_calls": [call]} | said | more,
        {"role": "tool", "tool_call_id": call_id, "content": "It is noon."},
    ]


@pytest.mark.parametrize("template", [TEXT, PARTS, MIXED])
@settings(max_examples=40, deadline=None)
@given(st.text("abc <|é\n", min_size=1).filter(str.strip))
def test_a_text_stands_in_the_prompt_whatever_the_form_of_content(template: str, text: str) -> None:
    """trl#5868, vLLM#9919, LiteRT-LM#3688: two different questions got the same answer."""
    told = rendered(template, [{"role": "system", "content": "Be brief."}, user(text)])
    assert told == f"[system]Be brief.[user]{text}[assistant]"
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": text}]
    assert rendered(template, [{"role": "user", "content": parts}]) == f"[user]one\n{text}[assistant]"


def test_a_template_that_shows_neither_form_is_refused_with_the_reason() -> None:
    error = refusal(NEITHER, [user("x")])
    assert (error.code, error.param) == ("invalid_request", "messages[0].content")
    assert "neither as a string nor as a list of text parts" in error.message


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        ("{{ messages[-1].content }}", 0),
        ("{{ messages[0].content }}", 1),
        (TURNS + "{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}", 2),
    ],
)
def test_what_was_said_and_is_not_shown_is_named(template: str, lost: int) -> None:
    tool = {"role": "tool", "tool_call_id": "a", "content": "Third."}
    error = refusal(template, [user("First."), user("Second."), tool][: max(2, lost + 1)])
    assert error.param == f"messages[{lost}].content"


def test_a_template_may_trim_and_quote() -> None:
    """Llama 3.1 writes a tool's result as a string of JSON."""
    assert rendered(TURNS + "{{ m.content | trim }}{% endfor %}", [user("  a  b\n")]) == "[user]a  b"
    quoted = [user('Say "hé"\n\tnow')]
    assert "\\n\\tnow" in rendered(TURNS + "{{ m.content | tojson }}{% endfor %}", quoted)


@pytest.mark.parametrize("template", NO_CONTENT.values(), ids=NO_CONTENT)
@pytest.mark.parametrize("content", [None, "absent", ""])
def test_a_turn_that_only_calls_is_rendered_whatever_stands_for_its_text(template: str, content: Any) -> None:
    """transformers#45419, mlx-vlm#1864: content null beside tool_calls is OpenAI's standard history."""
    told = rendered(template, history(content))
    assert told == rendered(template, history(None))
    assert '{"name": "now", "arguments": {"city": "Rome", "days": 3}}' in told
    assert told.startswith("[user]What time?[assistant]<tool_call>")
    assert "It is noon." in told
    assert "None" not in told


@pytest.mark.parametrize(("name", "calls"), ARGUMENT_FORMS.items())
def test_arguments_are_objects_or_json_as_the_template_joins_them(name: str, calls: str) -> None:
    """verl#7664, mlx-lm#1065."""
    told = rendered(calling("{{ m.content or '' }}", calls), history())
    spelled = "city=Romedays=3" if name.startswith("items") else '{"city": "Rome", "days": 3}'
    assert spelled in told


def test_text_beside_calls_gets_a_turn_of_its_own_where_the_template_would_drop_it() -> None:
    """Llama 3.1's template writes a turn's calls or its text."""
    template = calling("{% if not m.tool_calls %}{{ m.content }}{% endif %}")
    told = rendered(template, history("Let me see."))
    assert told.startswith("[user]What time?[assistant]Let me see.[assistant]<tool_call>")
    both = rendered(calling("{{ m.content or '' }}"), history("Let me see."))
    assert both.startswith("[user]What time?[assistant]Let me see.<tool_call>")
    strict = (
        "{% for m in messages[1:] %}{% if m.role == messages[loop.index0].role %}"
        "{{ raise_exception('twice') }}{% endif %}{% endfor %}"
    )
    error = refusal(strict + template, history("Let me see."))
    assert (error.code, error.param) == ("unsupported_parameter", "messages[1].content")


NINE = calling(
    "{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}{{ raise_exception('not 9 letters') }}"
    "{% endif %}[id {{ c.id }}]{% endfor %}{% if m.tool_call_id %}[for {{ m.tool_call_id }}]{% endif %}"
    "{{ m.content or '' }}"
)


@settings(deadline=None)
@given(st.sampled_from(["call_0123456789abcdef", "abcDEF123", "x", ""]))
def test_mistrals_ids_are_nine_letters_and_digits(name: str) -> None:
    """llama-cpp-python#1580: other ids are refused by Mistral's templates."""
    messages = history(call_id=name)
    if not name:
        del messages[1]["tool_calls"][0]["id"], messages[2]["tool_call_id"]
    told = rendered(NINE, messages)
    given_id, result_id = told.partition("[id ")[2][:9], told.partition("[for ")[2][:9]
    assert given_id == result_id
    assert given_id.isalnum()
    assert name != "abcDEF123" or given_id == name


def test_a_system_message_begins_the_next_turn_where_there_is_no_turn_for_it() -> None:
    """mlx-lm#1375, llama.cpp#9639: as llama-server does for Gemma 2."""
    system = {"role": "system", "content": "Be brief."}
    assert rendered(NO_SYSTEM, [system, user("Hi")]) == "[user]Be brief.\nHi[assistant]"
    developer = {"role": "developer", "content": "In Latin."}
    assert rendered(NO_SYSTEM, [system, developer, user("Hi")]) == "[user]Be brief.\nIn Latin.\nHi[assistant]"
    assert "not supported" in refusal(NO_SYSTEM, [system]).message


def test_reasoning_is_told_under_the_name_that_the_template_knows() -> None:
    template = calling("{% if m.thinking %}[thought]{{ m.thinking }}{% endif %}{{ m.content or '' }}")
    assert "[thought]Easy." in rendered(template, history(reasoning_content="Easy."))


def test_calls_that_no_template_and_no_form_can_show_are_refused() -> None:
    error = refusal(TEXT, history())
    assert (error.code, error.param) == ("unsupported_parameter", "messages[1].tool_calls")


@pytest.mark.parametrize(
    ("described", "written"),
    [
        (
            "respond only with <|tool_call|> followed by a JSON list of tools used",
            '<|tool_call|>[{"name": "now", "arguments": {"city": "Rome", "days": 3}}]',
        ),
        ("List of tools: [", '<|tool_call_start|>[now(city="Rome", days=3)]<|tool_call_end|>'),
    ],
    ids=["Granite 3.3", "LFM2.5"],
)
def test_a_template_that_writes_no_calls_has_them_written_in_its_models_form(
    described: str, written: str
) -> None:
    template = (
        "{% if tools %}" + described + "{{ tools }}{% endif %}" + TURNS + "{{ '' + m.content }}{% endfor %}"
    )
    told = rendered(template, history(), tools=[NOW])
    assert f"[user]What time?[assistant]{written}[tool]It is noon." in told


def test_a_template_that_refuses_everything_says_why_in_the_row() -> None:
    nature = nature_of(ChatTemplate("{{ raise_exception('never') }}"))
    assert nature == TemplateNature({"user": "text"})
    assert "never" in refusal("{{ raise_exception('never') }}", [user("x")]).message


def test_a_template_is_probed_once() -> None:
    chat = ChatFormat(TEXT)
    assert chat.nature is chat.nature


def test_results_name_their_function_where_the_template_wants_it() -> None:
    """Hermes and Qwen 2 refuse results without a name, which OpenAI's have not."""
    template = calling(
        "{% if m.role == 'tool' %}{{ m.name or raise_exception('results need a name') }}: {% endif %}"
        "{{ m.content or '' }}"
    )
    assert "[tool]now: It is noon." in rendered(template, history())


def test_a_template_that_is_there_for_tools_takes_rows_without() -> None:
    template = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}" + TEXT
    assert rendered(template, [user("Hi")]) == "[user]Hi[assistant]"


def test_calls_as_python_prints_them_are_no_form_of_a_model() -> None:
    described = '{% if tools %}{{ tools | tojson }}<tool_call>\n{"name": ...}\n</tool_call>{% endif %}'
    template = described + TURNS + "{{ m.content or m.tool_calls }}{% endfor %}" + END
    told = rendered(template, history(), tools=[NOW])
    assert '<tool_call>\n{"name": "now", "arguments": {"city": "Rome", "days": 3}}\n</tool_call>' in told
