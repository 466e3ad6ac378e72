"""How a model calls tools is told from its chat template, and its calls are read so.

llamafarm#753, llama.cpp#15789: calls of gpt-oss, Qwen3-Coder, GLM, LFM2.5, Mistral and Gemma stayed text.
The templates here are small ones of our own that write calls as those models' templates do.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat.chat_format import ChatFormat, ChatFormats
from pipeline.chat.prompts import PromptBuilder
from pipeline.chat.reply import Reply
from pipeline.chat.tool_forms import FUNCTOOLS, GEMMA, GRANITE, HARMONY, HERMES, LFM, LLAMA, MISTRAL
from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest, parse_request

HEAD = (
    "{% if tools %}[tools]{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}"
)
TAIL = "[end]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
EACH = "{% for c in m.tool_calls or [] %}"
ITEMS = "{% for k, v in c.function.arguments.items() %}"
VALUE = "{{ v if v is string else v | tojson }}"
ARGS = "{{ c.function.arguments | tojson }}"
NAME = "{{ c.function.name }}"


def template(calls: str, said: str = "") -> str:
    return f"{said}{HEAD}{calls}{TAIL}"


TEMPLATES = {
    "Hermes, Qwen": template(
        EACH + '\n<tool_call>\n{"name": "' + NAME + '", "arguments": ' + ARGS + "}\n</tool_call>{% endfor %}"
    ),
    "Llama 3.1": template(
        "{% if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}"
        + EACH
        + '{"name": "'
        + NAME
        + '", "parameters": '
        + ARGS
        + "}{% endfor %}"
    ),
    "Mistral Nemo": template(
        "{% if m.tool_calls %}[TOOL_CALLS]["
        + EACH
        + '{"name": "'
        + NAME
        + '", "arguments": '
        + ARGS
        + ', "id": "{{ c.id }}"}'
        "{{ ', ' if not loop.last }}{% endfor %}]{% endif %}"
    ),
    "Mistral Small 3.2": template(
        EACH + "[TOOL_CALLS]" + NAME + "[CALL_ID]{{ c.id }}[ARGS]" + ARGS + "{% endfor %}"
    ),
    "Devstral, Ministral": template(EACH + "[TOOL_CALLS]" + NAME + "[ARGS]" + ARGS + "{% endfor %}"),
    "Qwen3-Coder": template(
        EACH
        + "\n<tool_call>\n<function="
        + NAME
        + ">\n"
        + ITEMS
        + "<parameter={{ k }}>\n"
        + VALUE
        + "\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}"
    ),
    "GLM 4.6": template(
        EACH
        + "\n<tool_call>"
        + NAME
        + "\n"
        + ITEMS
        + "<arg_key>{{ k }}</arg_key>\n<arg_value>"
        + VALUE
        + "</arg_value>\n{% endfor %}</tool_call>{% endfor %}"
    ),
    "MiniMax M2": template(
        "{% if m.tool_calls %}\n<minimax:tool_call>"
        + EACH
        + '\n<invoke name="'
        + NAME
        + '">'
        + ITEMS
        + '\n<parameter name="{{ k }}">'
        + VALUE
        + "</parameter>{% endfor %}\n</invoke>{% endfor %}\n</minimax:tool_call>{% endif %}"
    ),
    "DeepSeek R1": template(
        "{% if m.tool_calls %}<|tool▁calls▁begin|>"
        + EACH
        + "<|tool▁call▁begin|>function<|tool▁sep|>"
        + NAME
        + "\n```json\n"
        + ARGS
        + "\n```<|tool▁call▁end|>{{ '\n' if not loop.last }}{% endfor %}<|tool▁calls▁end|>{% endif %}"
    ),
    "Command R": template(
        "{% if m.tool_calls %}<|START_ACTION|>["
        + EACH
        + '\n    {"tool_call_id": "{{ loop.index0 }}", "tool_name": "'
        + NAME
        + '", "parameters": '
        + ARGS
        + "}{{ ',' if not loop.last }}{% endfor %}\n]<|END_ACTION|>{% endif %}"
    ),
    "functionary 3.1": template(EACH + "<function=" + NAME + ">" + ARGS + "</function>{% endfor %}"),
    "Kimi K2": template(
        "{% if m.tool_calls %}<|tool_calls_section_begin|>"
        + EACH
        + "<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>"
        + ARGS
        + "<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}"
    ),
    "Apertus": template(
        "{% if m.tool_calls %}<|tools_prefix|>["
        + EACH
        + '{"'
        + NAME
        + '": '
        + ARGS
        + "}{{ ', ' if not loop.last }}{% endfor %}]<|tools_suffix|>{% endif %}"
    ),
    "OpenAI's wrapper": template(EACH + "<call>{{ c | tojson }}</call>{% endfor %}"),
    "LFM2": template(
        "{% if m.tool_calls %}<|tool_call_start|>["
        + EACH
        + NAME
        + "("
        + ITEMS
        + "{{ k }}={{ v | tojson }}{{ ', ' if not loop.last }}{% endfor %}){{ ', ' if not loop.last }}"
        + "{% endfor %}]<|tool_call_end|>{% endif %}"
    ),
}
TEMPLATES["OLMo 3"] = template(
    "{% if m.tool_calls %}<function_calls>\n"
    + EACH
    + NAME
    + "("
    + ITEMS
    + "{{ k }}={{ v | tojson }}{{ ', ' if not loop.last }}{% endfor %}){{ '\n' if not loop.last }}"
    + "{% endfor %}\n</function_calls>{% endif %}"
)
TEMPLATES["Llama 4"] = template(
    "{% if m.tool_calls %}["
    + EACH
    + NAME
    + "("
    + ITEMS
    + "{{ k }}={{ v | tojson }}{{ ', ' if not loop.last }}{% endfor %}){{ ', ' if not loop.last }}"
    + "{% endfor %}]{% endif %}"
)
DESCRIBED = {
    "Phi-4-mini": ('a single JSON list formatted as functools[{"name": ...}]', FUNCTOOLS),
    "Granite 3.3": ("respond only with <|tool_call|> followed by a JSON list of tools used", GRANITE),
    "LFM2.5": ("List of tools: [", LFM),
    "Hermes": ('<tool_call>\n{"name": <function-name>, "arguments": <args>}', HERMES),
    "Mistral": ("[TOOL_CALLS] [", MISTRAL),
    "Llama": ('{"name": function name, "parameters": dictionary}', LLAMA),
}
ONE_CALL = {"Llama 3.1"}
NOTHING_ELSE = {"Llama 3.1", "Llama 4"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "?",
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "count": {"type": "integer"},
                    "flags": {"type": "array", "items": {"type": "boolean"}},
                },
            },
        },
    }
    for name in ("weather", "search.all")
]
words = st.text("abcxyz é\"'\\{}[]<>,:=0123\n", min_size=1, max_size=12).filter(
    lambda text: not text.startswith("\n") and not text.endswith("\n") and "<" not in text and "[" not in text
)
arguments = st.fixed_dictionaries(
    {"text": words}, optional={"count": st.integers(-9, 9), "flags": st.lists(st.booleans(), max_size=2)}
)
calls = st.tuples(st.sampled_from(["weather", "search.all"]), arguments)
formats = lru_cache(ChatFormats)
quick = settings(max_examples=25, deadline=None)


def chat(**fields: Any) -> ChatRequest:
    body = {"messages": [{"role": "user", "content": "?"}], "tools": TOOLS} | fields
    request = parse_request("/v1/chat/completions", body)
    assert isinstance(request, ChatRequest)
    return request


def written(source: str, asked: list[tuple[str, Any]]) -> str:
    """The calls as a template writes them, which is as its model does."""
    turns = [
        {
            "id": f"abcdef12{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(values)},
        }
        for number, (name, values) in enumerate(asked)
    ]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": turns}]
    request = chat(messages=messages)
    told = [message.for_template() for message in request.messages]
    rendered = formats(source).of(request).render(told, [], {})
    return rendered.partition("[assistant]")[2].partition("[end]")[0]


def read(source: str, text: str, **fields: Any) -> tuple[list[tuple[str, Any]], Reply]:
    request = chat(**fields)
    reply = formats(source).of(request).reply(request, text, guided=False)
    return [(call.name, json.loads(call.arguments)) for call in reply.calls], reply


@pytest.mark.parametrize("name", TEMPLATES)
@quick
@given(st.lists(calls, min_size=1, max_size=3), st.sampled_from(["", "Let me see.\n"]))
def test_what_a_template_writes_as_calls_is_read_as_calls(name: str, asked: Any, before: str) -> None:
    asked = asked[:1] if name in ONE_CALL else asked
    before = "" if name in NOTHING_ELSE else before
    text = written(TEMPLATES[name], asked)
    found, reply = read(TEMPLATES[name], before + text)
    assert found == asked
    assert reply.content == (before.strip() or None)


@pytest.mark.parametrize("name", TEMPLATES)
@quick
@given(st.lists(calls, min_size=2, max_size=2))
def test_without_parallel_calls_the_first_is_kept(name: str, asked: Any) -> None:
    asked = asked[:1] if name in ONE_CALL else asked
    found, _ = read(TEMPLATES[name], written(TEMPLATES[name], asked), parallel_tool_calls=False)
    assert found == asked[:1]


@pytest.mark.parametrize("name", TEMPLATES)
@quick
@given(calls, st.data())
def test_a_call_that_was_cut_off_stays_text(name: str, call: Any, data: st.DataObject) -> None:
    text = written(TEMPLATES[name], [call])
    last = max(text.rfind(mark) for mark in ("}", "</parameter>", "</arg_value>", ")"))
    cut = text[: data.draw(st.integers(0, last))].rstrip("]")
    assert read(TEMPLATES[name], cut)[1] == Reply(cut)


@pytest.mark.parametrize("name", TEMPLATES)
@quick
@given(st.text())
def test_a_text_without_calls_is_content_as_it_stands(name: str, text: str) -> None:
    assert read(TEMPLATES[name], text)[1] == Reply(text)
    call = written(TEMPLATES[name], [("weather", {"text": "a"})])
    assert read(TEMPLATES[name], call, tools=[])[1] == Reply(call)


@pytest.mark.parametrize(("described", "form"), DESCRIBED.values(), ids=DESCRIBED)
def test_forms_that_a_template_only_describes(described: str, form: Any) -> None:
    source = "{% if tools %}" + described + "{{ tools }}{% endif %}{{ messages[0].content }}"
    assert ChatFormat(source).form == form


@pytest.mark.parametrize(
    "source",
    [
        "{{ tools }}{{ messages[0].content }}",
        template(EACH + "{{ c.function.name | upper }}{% endfor %}"),
        template(EACH + "call " + NAME + " with " + ITEMS + "{{ k }}{{ v }} {% endfor %}{% endfor %}"),
    ],
)
def test_tools_are_refused_by_name_where_the_form_is_not_known(source: str) -> None:
    builder = PromptBuilder(FakeVocabulary(), formats=ChatFormats(source))
    with pytest.raises(RowError, match="a form that isn't known") as caught:
        builder.build(chat())
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools")


def test_tools_reach_the_template_under_the_name_that_it_reads() -> None:
    """SmolLM3 reads xml_tools."""
    source = "{{ messages[0].content }}{% if xml_tools %}{{ xml_tools | tojson }}{% endif %}"
    source += "{# <tool_call>\n{'name': } #}"
    request = chat()
    told = [message.for_template() for message in request.messages]
    offered = [tool.for_template() for tool in request.offered]
    assert formats(source).of(request).form == HERMES
    assert '"weather"' in formats(source).of(request).render(told, offered, {})


def test_a_template_that_reads_tools_and_does_not_show_them_knows_none() -> None:
    builder = PromptBuilder(FakeVocabulary(), formats=ChatFormats("{% if tools %}{% endif %}[TOOL_CALLS] ["))
    with pytest.raises(RowError, match="knows no tools"):
        builder.build(chat())


HARMONY_TEMPLATE = (
    "{% if tools %}{{ tools }}{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{# <|channel|>commentary to=functions.x <|constrain|>json<|message|>{}<|call|> #}<|start|>assistant"
)
WEATHER = '{"text": "Rome"}'


@pytest.mark.parametrize(
    ("text", "reasoning", "content", "count"),
    [
        ("<|channel|>final<|message|>Hi.", None, "Hi.", 0),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi.",
            "Hm.",
            "Hi.",
            0,
        ),
        ("<|channel|>analysis<|message|>Hm.", "Hm.", "", 0),
        (f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{WEATHER}", None, None, 1),
        (f" to=functions.weather<|channel|>commentary json<|message|>{WEATHER}<|call|>", None, None, 1),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
            f"<|channel|>analysis to=functions.weather<|message|>{WEATHER}",
            "Hm.",
            None,
            1,
        ),
        (
            "<|channel|>commentary<|message|>Look.<|end|>"
            f"<|start|>assistant to=functions.weather<|channel|>commentary<|message|>{WEATHER}<|end|>"
            f"<|start|>assistant to=functions.weather<|message|>{WEATHER}",
            None,
            "Look.",
            2,
        ),
        ("<|channel|>commentary to=assistant<|channel|>final<|message|>Hi.", None, "Hi.", 0),
        ("no channels at all", None, "no channels at all", 0),
    ],
)
def test_gpt_oss_speaks_in_channels(
    text: str, reasoning: str | None, content: str | None, count: int
) -> None:
    assert ChatFormat(HARMONY_TEMPLATE).form == HARMONY
    found, reply = read(HARMONY_TEMPLATE, text)
    assert (reply.reasoning, reply.content) == (reasoning, content)
    assert found == [("weather", {"text": "Rome"})] * count


def test_a_message_to_nobody_known_is_text_and_not_lost() -> None:
    text = "<|channel|>commentary to=functions.other<|message|>{}<|end|>"
    found, reply = read(HARMONY_TEMPLATE, text)
    assert not found
    assert reply.content == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('call:weather{text:<|"|>Rome, {now}<|"|>}', {"text": "Rome, {now}"}),
        ("call:weather{}", {}),
        ("call:weather{count:3,flags:[true,false]}", {"count": 3, "flags": [True, False]}),
        ('call:weather{text:{a:<|"|>b<|"|>,c:null}}', {"text": {"a": "b", "c": None}}),
    ],
)
def test_gemma_writes_values_of_its_own(text: str, expected: Any) -> None:
    source = "{% if tools %}{{ tools }}{% endif %}{{ messages[0].content }}{# <|tool_call>call:x{} #}"
    assert ChatFormat(source).form == GEMMA
    found, reply = read(source, f"Well.<|tool_call>{text}<tool_call|>")
    assert (found, reply.content) == ([("weather", expected)], "Well.")


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('weather\n{"text": "Rome"}', 1),
        ("all\nHi.", 0),
        ('all\nHi.>>>weather\n{"text": "Rome"}>>>weather\n{"text": "Rome"}', 2),
    ],
)
def test_functionary_says_for_whom_each_part_is(text: str, calls: int) -> None:
    source = "{% if tools %}{{ tools }}{% endif %}{{ messages[0].content }}{# >>>all #}>>>"
    found, reply = read(source, text)
    assert found == [("weather", {"text": "Rome"})] * calls
    assert reply.content == ("Hi." if "Hi." in text else None)


@pytest.mark.parametrize(
    "text",
    [
        '<|python_tag|>weather.call(text="Rome")',
        'weather.call(text="Rome")',
        '[weather(text="Rome")]',
        '<|python_tag|>{"type": "function", "name": "weather", "parameters": {"text": "Rome"}}',
    ],
)
def test_llamas_other_ways_to_call(text: str) -> None:
    source = TEMPLATES["Llama 3.1"]
    assert read(source, text)[0] == [("weather", {"text": "Rome"})]
    other = text.replace("weather", "open")
    assert read(source, other)[1] == Reply(other)


CODER = TEMPLATES["Qwen3-Coder"]


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ("5", {"type": "string"}, "5"),
        ("5", {"type": "integer"}, 5),
        ("5", {}, 5),
        ("True", {"type": "boolean"}, True),
        ("true", {"type": ["boolean", "string"]}, True),
        ("None", {"type": ["integer", "null"]}, None),
        ("[1, 2]", {"anyOf": [{"type": "array"}, {"type": "null"}]}, [1, 2]),
        ("high", {"enum": ["low", "high"]}, "high"),
        ("7", {"enum": ["7", "8"]}, "7"),
        ("not a number", {"type": "number"}, "not a number"),
        ("  indented\n", {"type": "string"}, "  indented\n"),
    ],
)
def test_bare_values_have_the_types_of_their_parameters(value: str, schema: Any, expected: Any) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}},
    }
    text = f"<tool_call>\n<function=f>\n<parameter=x>\n{value}\n</parameter>\n</function>\n</tool_call>"
    assert read(CODER, text, tools=[tool])[0] == [("f", {"x": expected})]


def test_qwen3_coder_may_leave_out_the_outer_mark() -> None:
    text = "Well.\n<function=weather>\n<parameter=text>\nRome\n</parameter>\n</function>\n</tool_call>"
    found, reply = read(CODER, text)
    assert (found, reply.content) == ([("weather", {"text": "Rome"})], "Well.")


@pytest.mark.parametrize(
    ("options", "opened"),
    [({}, True), ({"enable_thinking": False}, False), ({"enable_thinking": True}, True)],
)
def test_whether_a_prompt_opens_the_reasoning_depends_on_the_rows_options(
    options: dict[str, Any], opened: bool
) -> None:
    """Qwen3.5 and QwQ: the prompt ends with <think> unless enable_thinking is false."""
    source = (
        "{{ messages[-1].content }}{% if enable_thinking is defined and not enable_thinking %}"
        "<think></think>{% else %}<think>\n{% endif %}"
    )
    _, reply = read(source, "Hm.</think>Hi.", tools=[], chat_template_kwargs=options)
    assert (reply.reasoning, reply.content) == (("Hm.", "Hi.") if opened else (None, "Hm.</think>Hi."))


def test_a_call_ends_reasoning_that_was_left_open() -> None:
    source = CODER + "<think>\n"
    text = "Hm.\n" + written(CODER, [("weather", {"text": "Rome"})])
    found, reply = read(source, text)
    assert (found, reply.reasoning, reply.content) == ([("weather", {"text": "Rome"})], "Hm.", None)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<|channel>thought", "<channel|>"),
    ],
)
def test_each_models_marks_of_reasoning(begin: str, end: str) -> None:
    source = "{{ messages[-1].content }}{# " + begin + end + " #}"
    _, reply = read(source, f"{begin}\nHm.\n{end}\n\nHi.", tools=[])
    assert (reply.reasoning, reply.content) == ("Hm.", "Hi.")
