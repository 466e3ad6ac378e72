"""Requests: each field's type, range and default; what is not served is refused by name, never ignored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Endpoint, RequestConfig
from pipeline.errors import RowError
from pipeline.request.fields import UNLIMITED
from pipeline.request.json_values import MAX_DEPTH, plain, read_json
from pipeline.request.rows import RowReader
from pipeline.request.schema import (
    CONTENT,
    KNOWN_FIELDS,
    REQUESTS,
    SERVED_FIELDS,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    GenerationFields,
    fields_of,
    parse_request,
)
from pipeline.request.unserved import WITHOUT_MEANING

CHAT: Endpoint = "/v1/chat/completions"
COMPLETION: Endpoint = "/v1/completions"
EMBEDDING: Endpoint = "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hi"}]
CONTENTS: dict[Endpoint, Any] = {CHAT: MESSAGES, COMPLETION: "Hi", EMBEDDING: "Hi"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def parse(endpoint: Endpoint, **fields: Any) -> Any:
    return parse_request(endpoint, {CONTENT[endpoint]: CONTENTS[endpoint]} | fields)


def refusal(endpoint: Endpoint, **fields: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        parse(endpoint, **fields)
    return caught.value


def chat_with(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"} | message]}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETION])
def test_defaults_of_a_generation(endpoint: Endpoint) -> None:
    request = parse(endpoint)
    assert isinstance(request, GenerationFields)
    assert (request.model, request.max_tokens, request.seed, request.stop) == ("local", 256, None, ())
    assert (request.temperature, request.top_p, request.top_k, request.min_p) == (0.8, 0.95, 40, 0.05)
    penalties = (request.repeat_penalty, request.presence_penalty, request.frequency_penalty)
    assert penalties == (1.1, 0, 0)


def test_each_endpoint_has_its_request() -> None:
    assert isinstance(parse(CHAT), ChatRequest)
    assert isinstance(parse(COMPLETION), CompletionRequest)
    assert isinstance(parse(EMBEDDING), EmbeddingRequest)


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_what_an_endpoint_is_about_is_required(endpoint: Endpoint) -> None:
    for missing in ({}, {CONTENT[endpoint]: None}):
        with pytest.raises(RowError, match="is required") as caught:
            parse_request(endpoint, missing)
        assert caught.value.param == CONTENT[endpoint]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("temperature", 0, 2),
        ("typical_p", 0, 1),
        ("dry_multiplier", 0, 100),
        ("dry_base", 1, 100),
        ("xtc_probability", 0, 1),
        ("xtc_threshold", 0, 1),
        ("mirostat_tau", 0, 100),
        ("mirostat_eta", 0, 1),
        ("top_p", 0, 1),
        ("min_p", 0, 1),
        ("repeat_penalty", 0.1, 10),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
    ],
)
@given(value=st.floats() | st.integers())
def test_numbers_are_taken_in_their_range_and_refused_beyond(
    name: str, low: float, high: float, value: float
) -> None:
    if low <= value <= high:
        assert getattr(parse(CHAT, **{name: value}), name) == value
    else:
        assert refusal(CHAT, **{name: value}).param == name


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("max_tokens", 0),
        ("max_tokens", 5.5),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("max_tokens", -2),
        ("max_completion_tokens", -2),
        ("temperature", "1"),
        ("temperature", True),
        ("top_k", -2),
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("min_tokens", -1),
        ("dry_allowed_length", -1),
        ("dry_penalty_last_n", -2),
        ("dry_sequence_breakers", [""]),
        ("mirostat", 3),
        ("logit_bias", [1]),
        ("guided_choice", "yes"),
        ("top_logprobs", 21),
        ("tools", {}),
        ("response_format", "json_object"),
        ("seed", 2**63),
        ("model", 5),
        ("stop", ""),
        ("stop", 5),
        ("stop", ["x"] * 17),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, bad: Any) -> None:
    error = refusal(CHAT, **{name: bad})
    assert (error.code, error.status_code, error.param) == ("invalid_request", 400, name)
    assert error.message.startswith(f"{name} must be a")


def test_a_whole_float_is_an_integer() -> None:
    request = parse(CHAT, max_tokens=5.0, top_k=0.0, seed=-3.0)
    assert (request.max_tokens, request.top_k, request.seed) == (5, 0, -3)
    assert all(type(n) is int for n in (request.max_tokens, request.top_k, request.seed))


def test_max_completion_tokens_is_max_tokens() -> None:
    assert parse(CHAT, max_completion_tokens=7).max_tokens == 7
    assert parse(CHAT, max_completion_tokens=7, max_tokens=7).max_tokens == 7
    assert "differ" in refusal(CHAT, max_completion_tokens=7, max_tokens=8).message


def test_stop_is_a_string_or_a_list() -> None:
    assert parse(CHAT, stop="a").stop == ("a",)
    assert parse(CHAT, stop=["a", "b"]).stop == ("a", "b")
    assert parse(CHAT, stop=[]).stop == ()
    assert refusal(CHAT, stop=["a", ""]).param == "stop[1]"


@pytest.mark.parametrize("endpoint", REQUESTS)
@given(name=st.text(min_size=1, max_size=8) | st.sampled_from(sorted(KNOWN_FIELDS)))
def test_a_field_that_is_not_served_is_refused_by_name(endpoint: Endpoint, name: str) -> None:
    if name in fields_of(endpoint) or name in WITHOUT_MEANING:
        return
    error = refusal(endpoint, **{name: "something"})
    assert (error.code, error.param) == ("unsupported_parameter", name)
    assert "support" in error.message or name == "stream"


@pytest.mark.parametrize("name", sorted(KNOWN_FIELDS - {*CONTENT.values()}))
def test_a_null_is_an_absent_field(name: str) -> None:
    assert parse(CHAT, **{name: None}) == parse(CHAT)


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1},
        {"n": 1.0},
        {"stream": False},
        {"stream_options": None},
        {"store": False},
        {"service_tier": "auto"},
        {"logprobs": False},
        {"top_logprobs": 0},
        {"logit_bias": {}},
        {"tools": []},
        {"tool_choice": "auto"},
        {"guided_choice": []},
        {"functions": []},
        {"response_format": {"type": "text"}},
        {"max_tokens": None},
        {"stream_options": {"include_usage": True}},
        {"skip_special_tokens": True},
        {"stop_token_ids": []},
        {"length_penalty": 1.0},
        {"use_beam_search": False},
        {"function_call": "auto"},
        {"verbosity": "medium"},
        {"add_special_tokens": False},
        {"repeat_last_n": 64},
        {"logit_bias": []},
        {"include_reasoning": True},
        {"usage": {"include": True}},
    ],
)
def test_openais_defaults_ask_for_nothing(harmless: dict[str, Any]) -> None:
    assert parse(CHAT, **harmless) == parse(CHAT)


@pytest.mark.parametrize(
    "asking",
    [
        {"best_of": 2},
        {"stream": True},
        {"audio": {}},
        {"functions": [{}]},
        {"suffix": "x"},
        {"verbosity": "low"},
        {"stop_token_ids": [5]},
        {"skip_special_tokens": False},
        {"repeat_last_n": 256},
    ],
)
def test_what_is_not_served_says_so(asking: dict[str, Any]) -> None:
    error = refusal(CHAT, **asking)
    assert (error.code, error.param) == ("unsupported_parameter", next(iter(asking)))
    assert "not supported yet" in error.message or "can't stream" in error.message


@given(st.sampled_from(sorted(REQUESTS)), st.sampled_from(sorted(WITHOUT_MEANING)), json_values)
def test_what_has_no_meaning_changes_nothing_whatever_it_says(
    endpoint: Endpoint, name: str, value: Any
) -> None:
    """After vllm-metal PR#720: whole jobs refused for a field that harms nobody."""
    try:
        plain(value)
    except RowError:
        return
    assert parse(endpoint, **{name: value}) == parse(endpoint)


def test_special_tokens_are_added_to_a_completion_and_not_to_a_chat() -> None:
    assert parse(COMPLETION, add_special_tokens=True) == parse(COMPLETION)
    assert refusal(COMPLETION, add_special_tokens=False).param == "add_special_tokens"
    assert refusal(CHAT, add_special_tokens=True).param == "add_special_tokens"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_minus_one_is_as_many_tokens_as_the_context_holds(name: str) -> None:
    for endpoint in (CHAT, COMPLETION):
        for value in (-1, -1.0):
            assert parse(endpoint, **{name: value}).max_tokens == UNLIMITED
    assert parse(CHAT, max_tokens=-1, min_tokens=5).min_tokens == 5


def test_all_tokens_are_0_and_minus_one() -> None:
    assert parse(CHAT, top_k=-1).top_k == parse(CHAT, top_k=-1.0).top_k == parse(CHAT, top_k=0).top_k == 0


def test_other_names_of_fields() -> None:
    assert parse(CHAT, n_predict=7).max_tokens == 7
    assert parse(CHAT, random_seed=7).seed == 7
    for one in (1, 1.0):
        assert parse(CHAT, repetition_penalty=one).repeat_penalty == 1
    assert refusal(CHAT, repetition_penalty=1.05).code == "unsupported_parameter"
    assert "repeat_penalty" in refusal(CHAT, repetition_penalty=1.05).message
    assert "differ" in refusal(CHAT, n_predict=7, max_completion_tokens=8).message
    assert "differ" in refusal(CHAT, repetition_penalty=1, repeat_penalty=1.2).message
    assert refusal(CHAT, n_predict=0).param == "n_predict"
    assert refusal(EMBEDDING, n_predict=5).code == "unsupported_parameter"


def test_what_servers_and_clients_write_into_a_history_changes_nothing() -> None:
    """Answers of OpenAI's, vLLM's, LiteLLM's and OpenRouter's, sent back as turns; Anthropic's caches."""
    call: dict[str, Any] = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    sent = {"role": "assistant", "content": "b", "tool_calls": [call]}
    noisy = sent | {
        "id": "msg_1",
        "annotations": [{"type": "url_citation"}],
        "audio": None,
        "function_call": None,
        "refusal": None,
        "parsed": {"a": 1},
        "provider_specific_fields": {"a": 1},
        "weight": 0,
        "prefix": False,
        "cache_control": {"type": "ephemeral"},
        "tool_calls": [
            call
            | {"index": 0, "extra_content": {}, "provider_specific_fields": {}}
            | {"function": call["function"] | {"parsed_arguments": {}}}
        ],
    }
    user = {
        "role": "user",
        "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}],
    }
    tool = {"type": "function", "function": {"name": "f"}}
    messages = [*MESSAGES, sent]
    assert parse(CHAT, messages=[user, noisy]) == parse(CHAT, messages=messages)
    marked = tool | {"cache_control": {"type": "ephemeral"}}
    assert parse(CHAT, tools=[marked]) == parse(CHAT, tools=[tool])
    for meant in ({"prefix": True}, {"audio": {"id": "x"}}, {"function_call": {"name": "f"}}):
        error = refusal(CHAT, messages=[*MESSAGES, sent | meant])
        assert error.code == "unsupported_parameter" and error.param.startswith("messages[1].")


def test_a_refusal_and_reasoning_are_part_of_a_history() -> None:
    refused = {"role": "assistant", "content": None, "refusal": "I can't."}
    parts = {"role": "assistant", "content": [{"type": "refusal", "refusal": "I can't."}]}
    for turn in (refused, parts):
        assert parse(CHAT, messages=[*MESSAGES, turn]).messages[1].content == "I can't."
    thought = {"role": "assistant", "content": "b", "reasoning": "a"}
    assert parse(CHAT, messages=[*MESSAGES, thought]).messages[1].reasoning_content == "a"


def test_a_tools_return_reaches_the_template() -> None:
    """As transformers writes the schema of a Python function."""
    tool = {"type": "function", "function": {"name": "f", "return": {"type": "string"}}}
    assert parse(CHAT, tools=[tool]).tools[0].for_template() == tool


def test_roles() -> None:
    for role in ("system", "user", "assistant", "tool"):
        assert parse(CHAT, **chat_with(role=role)).messages[1].role == role
    assert parse(CHAT, **chat_with(role="developer")).messages[1].role == "system"
    error = refusal(CHAT, **chat_with(role="boss"))
    assert error.param == "messages[1].role"
    assert "one of system, developer, user, assistant, tool, not 'boss'" in error.message


def test_text_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "a", "image_url": None}, {"type": "text", "text": "b"}]
    assert parse(CHAT, **chat_with(content=parts)).messages[1].content == "a\nb"


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"content": None}, "invalid_request", "messages[1].content"),
        ({"content": 5}, "invalid_request", "messages[1].content"),
        ({"content": ["a"]}, "invalid_request", "messages[1].content[0]"),
        ({"content": [{"type": "text"}]}, "invalid_request", "messages[1].content[0].text"),
        ({"content": [{"type": "image_url"}]}, "unsupported_parameter", "messages[1].content[0].type"),
        ({"audio": {}}, "unsupported_parameter", "messages[1].audio"),
        ({"tool_call_id": "a"}, "invalid_request", "messages[1].tool_call_id"),
        ({"reasoning_content": "a"}, "invalid_request", "messages[1].reasoning_content"),
        ({"role": "assistant", "content": None}, "invalid_request", "messages[1].content"),
        ({"name": 5}, "invalid_request", "messages[1].name"),
    ],
)
def test_what_is_wrong_in_a_message_is_named_by_its_path(
    message: dict[str, Any], code: str, param: str
) -> None:
    error = refusal(CHAT, **chat_with(**message))
    assert (error.code, error.param) == (code, param)
    assert error.message.startswith(param)


def test_messages_are_a_list_of_at_least_one() -> None:
    for bad in ([], "Hi", {"role": "user", "content": "Hi"}):
        assert refusal(CHAT, messages=bad).param == "messages"
    assert refusal(CHAT, messages=["Hi"]).param == "messages[0]"


def test_a_prompt_is_one_text_or_its_token_ids() -> None:
    assert parse(COMPLETION, prompt="").prompt == ""
    assert parse(COMPLETION, prompt=[1, 2.0]).prompt == (1, 2)
    assert parse(COMPLETION, prompt=["a"]).prompt == "a"
    assert parse(COMPLETION, prompt=[[1, 2]]).prompt == (1, 2)
    for bad, param in (
        ([], "prompt"),
        (["a", "b"], "prompt"),
        ([[1], [2]], "prompt"),
        ([["a"]], "prompt"),
        ([1, "a"], "prompt[1]"),
        (5, "prompt"),
    ):
        assert refusal(COMPLETION, prompt=bad).param == param


@pytest.mark.parametrize(
    ("asked", "inputs", "single"),
    [
        ("a", ["a"], True),
        (["a", "b"], ["a", "b"], False),
        ([1, 2], [(1, 2)], True),
        ([[1, 2], [3]], [(1, 2), (3,)], False),
    ],
)
def test_inputs_of_an_embedding(asked: Any, inputs: list[Any], single: bool) -> None:
    request = parse(EMBEDDING, input=asked)
    assert (request.inputs, request.single) == (inputs, single)


@pytest.mark.parametrize(
    ("bad", "param"),
    [
        ("", "input"),
        ([], "input"),
        (5, "input"),
        (["a", ""], "input[1]"),
        (["a", [1]], "input[1]"),
        ([[1], []], "input[1]"),
        ([[1], [2, "a"]], "input[1][1]"),
        (["a"] * 2049, "input"),
    ],
)
def test_an_input_that_is_none_is_refused(bad: Any, param: str) -> None:
    assert refusal(EMBEDDING, input=bad).param == param


def test_fields_of_embeddings() -> None:
    request = parse(EMBEDDING, dimensions=64.0, encoding_format="base64", user="me")
    assert (request.dimensions, request.encoding_format) == (64, "base64")
    assert refusal(EMBEDDING, dimensions=0).param == "dimensions"
    assert refusal(EMBEDDING, encoding_format="int8").message.endswith('"float" or "base64", not \'int8\'')


@pytest.mark.parametrize("endpoint", REQUESTS)
@given(
    body=st.dictionaries(st.sampled_from(sorted(KNOWN_FIELDS)) | st.text(max_size=5), json_values, max_size=6)
)
def test_any_body_is_a_request_or_a_row_error(endpoint: Endpoint, body: dict[str, Any]) -> None:
    try:
        request = parse_request(endpoint, body)
    except RowError as error:
        error.message.encode()
    else:
        assert isinstance(request, REQUESTS[endpoint])


def test_text_that_is_not_unicode_is_refused() -> None:
    assert refusal(COMPLETION, prompt="a\ud800").message == "prompt has a lone surrogate at character 1"
    assert "UTF-8" in refusal(COMPLETION, prompt=b"\xff").message


def test_a_value_of_any_size_makes_a_short_message() -> None:
    for huge in ("x" * 10**6, list(range(10**5)), {"x": "y" * 10**6}):
        assert len(refusal(CHAT, temperature=huge).message) < 400


def test_depth_is_bounded() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH * 20):
        deep = [deep]
    assert "nested deeper" in refusal(CHAT, tools=deep).message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": }', "line 1 column 7"),
        ("", "line 1 column 1"),
        ("[NaN]", "NaN is not a JSON number"),
        ("[" * 10**5, "nested too deeply"),
        ("9" * 10**4, "not JSON"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_broken_json_says_where(text: str | bytes, reason: str) -> None:
    with pytest.raises(RowError, match=reason) as caught:
        read_json(text, "body")
    assert (caught.value.code, caught.value.param) == ("invalid_request", "body")


def test_served_fields_are_those_of_all_endpoints() -> None:
    assert frozenset().union(*map(fields_of, REQUESTS)) == SERVED_FIELDS
    assert {"messages", "prompt", "input", "max_tokens", "max_completion_tokens", "tools"} <= SERVED_FIELDS
    assert SERVED_FIELDS.isdisjoint({"best_of", "stream", "suffix", "functions"})


@pytest.mark.parametrize(
    ("fields", "penalty"),
    [
        ({}, 1.1),
        ({"response_format": {"type": "text"}}, 1.1),
        ({"response_format": {"type": "json_object"}}, 1.1),
        ({"response_format": {"type": "json_object", "schema": {"type": "integer"}}}, 1.0),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}}, 1.0),
        ({"guided_choice": ["a", "b"]}, 1.0),
        ({"guided_regex": "a+"}, 1.0),
        ({"grammar": 'root ::= "a"'}, 1.0),
        ({"guided_choice": ["a", "b"], "repeat_penalty": 1.1}, 1.1),
        ({"guided_choice": ["a", "b"], "repeat_penalty": 1.3}, 1.3),
    ],
)
def test_the_penalty_of_an_answer_with_a_given_form_is_off_unless_asked_for(
    fields: dict[str, Any], penalty: float
) -> None:
    """nightherd's issue 12: the reference's 1.1 bent labels, numbers that were to be copied, and JSON."""
    message = {"messages": [{"role": "user", "content": "?"}]}
    for endpoint, content in (("/v1/chat/completions", message), ("/v1/completions", {"prompt": "?"})):
        assert parse_request(endpoint, content | fields).repeat_penalty == penalty


def test_the_penalty_is_off_where_tools_are_offered() -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    body = {"messages": [{"role": "user", "content": "?"}], "tools": tools}
    assert parse_request("/v1/chat/completions", body).repeat_penalty == 1.0
    assert parse_request("/v1/chat/completions", body | {"tool_choice": "none"}).repeat_penalty == 1.1


def test_a_penalty_of_the_job_file_holds_for_every_row() -> None:
    config = RequestConfig(defaults={"repeat_penalty": 1.2, "guided_choice": ["a", "b"]})
    row = RowReader(config, ("prompt",), "s").read({"prompt": "?"}, 0)
    assert isinstance(row.request, CompletionRequest)
    assert row.request.repeat_penalty == 1.2
