"""Rows: the columns decide the form; a bad row is a value, and only a bad job file or input raises."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import RequestConfig
from pipeline.errors import ConfigError, InputError, RowError
from pipeline.request.rows import Row, RowReader, records
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest

MESSAGES = [{"role": "user", "content": "Hi"}]
LABEL = {"messages": [{"role": "user", "content": "Label: {{ text }}"}], "temperature": 0}


def read(record: dict[str, Any], *, duplicate: bool = False, **config: Any) -> Row:
    return RowReader(RequestConfig(**config), tuple(record), "a/b.parquet").read(record, 3, duplicate)


def request(record: dict[str, Any], **config: Any) -> Any:
    found = read(record, **config).request
    assert not isinstance(found, RowError), found
    return found


def error(record: dict[str, Any], **config: Any) -> RowError:
    found = read(record, **config).request
    assert isinstance(found, RowError)
    return found


def batch(body: Any, url: Any = "/v1/completions", **others: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": body} | others


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"custom_id": "c", "id": "i"}, "c"),
        ({"custom_id": None, "id": "i"}, "i"),
        ({"custom_id": 7}, "7"),
        ({"custom_id": b"c"}, "c"),
        ({"custom_id": "", "id": "i"}, "i"),
        ({"custom_id": b""}, "a/b.parquet:3"),
        ({"custom_id": UUID(int=7)}, "00000000-0000-0000-0000-000000000007"),
        ({"id": 7}, "7"),
        ({"custom_id": 7.0}, "7"),
        ({"id": 7.5}, "7.5"),
        ({"id": True}, "a/b.parquet:3"),
        ({"id": ["a"]}, "a/b.parquet:3"),
        ({"id": None}, "a/b.parquet:3"),
        ({}, "a/b.parquet:3"),
    ],
)
def test_every_row_has_a_name(record: dict[str, Any], name: str) -> None:
    assert read({"prompt": "Hi"} | record).custom_id == name


def test_a_custom_id_is_a_string() -> None:
    for bad in (float("nan"), True, ["a"], "\ud800", b"\xff"):
        row = read({"prompt": "Hi", "custom_id": bad})
        assert isinstance(row.request, RowError)
        assert (row.custom_id, row.request.param) == ("a/b.parquet:3", "custom_id")


def test_a_custom_id_is_unique() -> None:
    row = read({"prompt": "Hi", "custom_id": "a"}, duplicate=True)
    assert row.custom_id == "a"
    assert isinstance(row.request, RowError)
    assert "more than once" in row.request.message


def test_a_bare_row_asks_by_its_content() -> None:
    assert isinstance(request({"messages": MESSAGES}), ChatRequest)
    assert request({"messages": json.dumps(MESSAGES)}) == request({"messages": MESSAGES})
    assert isinstance(request({"prompt": "Hi"}), CompletionRequest)
    assert isinstance(request({"input": ["Hi"]}), EmbeddingRequest)
    assert isinstance(request({"prompt": "Hi", "input": None}), CompletionRequest)


def test_a_bare_rows_columns_set_its_fields_and_others_are_data() -> None:
    found = request({"prompt": "Hi", "max_tokens": 3.0, "stop": ["a"], "seed": None, "label": object()})
    assert (found.max_tokens, found.stop, found.seed) == (3, ("a",), None)
    assert error({"prompt": "Hi", "stream": True}).param == "stream"
    assert error({"prompt": "Hi", "dimensions": 2}).code == "unsupported_parameter"


@pytest.mark.parametrize("name", ["guided_json", "json_schema", "samplers"])
def test_a_column_that_bears_a_field_of_other_servers_is_never_passed_over(name: str) -> None:
    refused = error({"prompt": "Hi", name: "something"})
    assert (refused.code, refused.param) == ("unsupported_parameter", name)
    assert isinstance(request({"prompt": "Hi", name: None}), CompletionRequest)


def test_a_bare_row_that_asks_for_none_or_two_is_an_error() -> None:
    assert "has none" in error({"prompt": None}).message
    assert "prompt and input" in error({"prompt": "Hi", "input": "Hi"}).message


@pytest.mark.parametrize("name", ["store", "user", "metadata", "priority"])
def test_a_column_that_bears_the_name_of_a_field_without_meaning_is_data(name: str) -> None:
    record = {"prompt": "Hi", name: "something"}
    assert request(record) == request({"prompt": "Hi"})
    assert name not in RowReader(RequestConfig(), tuple(record), "s").columns
    assert request({"prompt": "Hi"}, defaults={name: "x"}) == request({"prompt": "Hi"})


def test_a_rows_own_penalty_goes_before_the_jobs() -> None:
    found = request({"prompt": "Hi", "repetition_penalty": 1.0}, defaults={"repeat_penalty": 1.2})
    assert found.repeat_penalty == 1


def test_a_bare_rows_columns_may_be_strings_of_json() -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    named = {"type": "function", "function": {"name": "now"}}
    fields: dict[str, Any] = {"messages": MESSAGES, "tools": tools, "logit_bias": {"5": 1}}
    texts = {name: json.dumps(value) for name, value in fields.items()}
    assert request(texts) == request(fields)
    assert request(texts | {"tool_choice": "required"}) == request(fields | {"tool_choice": "required"})
    assert request(texts | {"tool_choice": json.dumps(named)}) == request(fields | {"tool_choice": named})
    form = {"type": "json_object"}
    assert request({"prompt": "Hi", "response_format": json.dumps(form)}) == request(
        {"prompt": "Hi", "response_format": form}
    )
    choices = request({"prompt": "Hi", "guided_choice": '["a", "b"]'})
    assert choices == request({"prompt": "Hi", "guided_choice": ["a", "b"]})
    assert error({"prompt": "Hi", "guided_choice": "yes"}).param == "guided_choice"


def test_a_structs_null_fields_are_no_part_of_a_schema() -> None:
    schemas = [{"type": "string", "maxLength": 3, "enum": None}, {"type": None, "enum": ["a"]}]
    forms = [{"type": "json_schema", "json_schema": {"name": "x", "schema": schema}} for schema in schemas]
    table = pa.table({"prompt": ["Hi"] * 2, "response_format": forms})
    first, second = (request(record) for record in records(table, ["prompt", "response_format"]))
    assert first.response_format.json_schema.schema_ == {"type": "string", "maxLength": 3}
    assert second.response_format.json_schema.schema_ == {"enum": ["a"]}


def test_defaults_may_need_what_the_rows_bring() -> None:
    found = request({"prompt": "Hi", "guided_choice": ["a"]}, defaults={"label_logprobs": True})
    assert found.label_logprobs
    assert error({"prompt": "Hi", "seed": 1}, defaults={"label_logprobs": True}).param == "label_logprobs"


def test_the_job_files_endpoint_decides_between_two() -> None:
    record = {"prompt": "Hi", "input": "Hi"}
    assert isinstance(request(record, endpoint="/v1/embeddings"), EmbeddingRequest)
    assert isinstance(request(record, endpoint="/v1/completions"), CompletionRequest)


@pytest.mark.parametrize("body", [{"prompt": "Hi", "seed": None}, '{"prompt": "Hi"}', b'{"prompt": "Hi"}'])
@pytest.mark.parametrize(
    "url", ["/v1/completions", "https://api.example.com/v1/completions", "/v1/completions/"]
)
def test_a_batch_line(body: Any, url: str) -> None:
    assert request(batch(body, url)) == request({"prompt": "Hi"})


@pytest.mark.parametrize(
    ("record", "param", "reason"),
    [
        (batch({"prompt": "Hi"}, method="GET"), "method", "must be POST, not 'GET'"),
        (batch({"prompt": "Hi"}, "/v1/images"), "url", "one of /v1/chat/completions, "),
        (batch({"prompt": "Hi"}, "http://["), "url", "one of"),
        (batch({}, None), "url", "one of"),
        (batch('{"prompt": "Hi"'), "body", "line 1 column"),
        (batch('{"prompt": NaN}'), "body", "NaN"),
        (batch('{"prompt": "\\ud800"}'), "prompt", "surrogate"),
        (batch("[" * 10**5), "body", "nested"),
        (batch("[]"), "body", "JSON object"),
        (batch(None), "body", "JSON object"),
        (batch({"prompt": "Hi", "top": 1}), "top", "not a field of /v1/completions"),
    ],
)
def test_what_is_wrong_in_a_batch_line(record: dict[str, Any], param: str, reason: str) -> None:
    row = read(record)
    assert row.custom_id == "a"
    assert isinstance(row.request, RowError)
    assert row.request.param == param
    assert reason in row.request.message


@pytest.mark.parametrize(
    "url",
    [
        "/chat/completions",
        "chat/completions",
        "v1/chat/completions",
        "/V1/Chat/Completions/",
        "/openai/v1/chat/completions",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        "https://me.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        "https://api.groq.com/openai/v1/chat/completions",
        "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions",
        "https://api.fireworks.ai/inference/v1/chat/completions",
        "http://localhost:8000/v1/chat/completions",
        "localhost:8000/v1/chat/completions",
    ],
)
@pytest.mark.parametrize("method", ["POST", "post", "Post", None])
def test_a_url_means_its_endpoint_wherever_a_provider_puts_it(url: str, method: str | None) -> None:
    """Azure's and Groq's batch files, and those of others with OpenAI's API."""
    bodies: dict[str, Any] = {"chat/completions": {"messages": MESSAGES}}
    bodies |= {"completions": {"prompt": "Hi"}, "embeddings": {"input": "Hi"}}
    for end, body in bodies.items():
        asked = url.replace("Chat/Completions", end.title()).replace("chat/completions", end)
        assert request(batch(body, asked, method=method)) == request(body)


@pytest.mark.parametrize("url", ["/v1/responses", "/v1/messages", "/v1/chat", "/v1/completions/x", "", 5])
def test_a_url_of_another_endpoint_is_refused(url: Any) -> None:
    assert error(batch({"prompt": "Hi"}, url)).param == "url"


def test_a_body_without_a_url_says_what_it_asks() -> None:
    """Mistral's batch lines are so."""
    for body in ({"messages": MESSAGES}, {"prompt": "Hi"}, {"input": "Hi"}):
        line = json.dumps({"custom_id": "a", "body": body})
        assert request({"line": line}) == request(body)
    assert error({"line": '{"custom_id": "a", "body": {"prompt": "Hi", "input": "Hi"}}'}).param == "url"


def test_lines_with_params_are_told_what_to_do() -> None:
    """Instructor's batch files, and Anthropic's."""
    line: dict[str, Any] = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    line |= {"params": {"messages": MESSAGES}}
    for written in (line, {"custom_id": "a", "params": line["params"]}):
        row = read({"line": json.dumps(written)})
        assert isinstance(row.request, RowError)
        assert (row.custom_id, row.request.param) == ("a", "params")
        assert "rename params to body" in row.request.message
        with pytest.raises(InputError, match="rename params to body"):
            RowReader(RequestConfig(), tuple(written), "s")
    assert request({"prompt": "Hi", "params": {"a": 1}}) == request({"prompt": "Hi"})


def test_a_page_beside_its_prompt_is_no_batch_line() -> None:
    page = {"url": "https://example.com", "body": "<p>Hi</p>"}
    assert request(page | {"prompt": "Hi"}) == request({"prompt": "Hi"})
    assert request(batch({"prompt": "Hi"}) | {"prompt": "kept"}) == request({"prompt": "Hi"})
    assert request({"line": json.dumps(page | {"prompt": "Hi"})}) == request({"prompt": "Hi"})


def test_json_lines_are_batch_lines_or_bare_requests() -> None:
    row = read({"line": json.dumps(batch({"input": "Hi"}, "/v1/embeddings"))})
    assert row.custom_id == "a"
    assert isinstance(row.request, EmbeddingRequest)
    assert (
        request({"line": '{"prompt": "Hi", "max_tokens": 5, "label": NaN}'.replace("NaN", "1")}).max_tokens
        == 5
    )
    for broken in ('{"prompt": "Hi"', b'{"prompt": "\xff"}', "5", ""):
        found = read({"line": broken})
        assert isinstance(found.request, RowError)
        assert found.custom_id == "a/b.parquet:3"


def test_defaults_lie_under_every_request() -> None:
    defaults = {"max_tokens": 9, "temperature": 0}
    for record in ({"prompt": "Hi"}, batch({"prompt": "Hi"}), {"line": '{"prompt": "Hi"}'}):
        found = request(record, defaults=defaults)
        assert (found.max_tokens, found.temperature) == (9, 0)
    assert request({"prompt": "Hi", "max_tokens": 3}, defaults=defaults).max_tokens == 3
    assert request({"prompt": "Hi", "max_tokens": None}, defaults=defaults).max_tokens == 9
    assert request({"prompt": "Hi", "max_completion_tokens": 3}, defaults=defaults).max_tokens == 3
    assert isinstance(request({"input": "Hi"}, defaults=defaults), EmbeddingRequest)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"defaults": {"max_token": 9}}, "request.defaults.max_token: "),
        (
            {"defaults": {"max_tokens": 0}},
            "request.defaults.max_tokens: max_tokens must be an integer from 1",
        ),
        ({"defaults": {"best_of": 2}}, "request.defaults.best_of: "),
        ({"defaults": {"n": 0}}, "request.defaults.n: "),
        (
            {"defaults": {"response_format": {"type": "xml"}}},
            "request.defaults.response_format.type: ",
        ),
        ({"defaults": {"guided_regex": "("}}, "request.defaults.guided_regex: "),
        (
            {"defaults": {"response_format": {"type": "json_object", "schema": {"not": {}}}}},
            "request.defaults.response_format.schema.not: ",
        ),
        ({"defaults": {"dimensions": 2}, "endpoint": "/v1/completions"}, "request.defaults.dimensions: "),
        ({"template": {"prompt": "{{ prompt", "seed": 1}}, "request.template.prompt: not a Jinja template"),
        ({"template": {"prompt": "Hi", "seeds": 1}}, "request.template.seeds: "),
        ({"template": {"prompt": "Hi", "temperature": 3}}, "request.template.temperature: "),
        ({"template": {"messages": [{"role": "boss", "content": "Hi"}]}}, "request.template.messages"),
        ({"template": {"seed": 1}}, "request.template: needs one of messages, prompt and input"),
    ],
)
def test_a_job_file_that_can_make_no_request_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RowReader(RequestConfig(**config), ("prompt",), "s")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("columns", "config", "needed"),
    [
        (["text"], {}, "messages or prompt or input"),
        (["title", "body"], {}, "body and url"),
        ([], {}, "none"),
        (["prompt"], {"endpoint": "/v1/embeddings"}, "needed: input"),
        (["other"], {"template": LABEL}, "request.template uses text, but the input's columns are other"),
    ],
)
def test_columns_that_make_no_request_are_refused(
    columns: list[str], config: dict[str, Any], needed: str
) -> None:
    with pytest.raises(InputError, match=needed):
        RowReader(RequestConfig(**config), columns, "s")


def test_a_template_renders_the_rows_columns() -> None:
    found = request({"text": "ok", "id": 1, "max_tokens": 1}, template=LABEL)
    assert isinstance(found, ChatRequest)
    assert found.messages[0].content == "Label: ok"
    assert (found.temperature, found.max_tokens) == (0, 256)
    assert request({"text": None}, template=LABEL).messages[0].content == "Label: "
    assert request({"line": '{"text": "ok"}'}, template=LABEL) == found
    assert request({"a b": 5}, template={"prompt": "{{ row['a b'] }}!"}).prompt == "5!"


def test_columns_and_fields_go_before_what_jinja_and_python_offer() -> None:
    found = request(
        {"range": "cheap", "order": {"items": "tea", "note": None}},
        template={"prompt": "{{ range }} {{ order.items }}{{ order.note }}{{ dict(a=1).a }}"},
    )
    assert found.prompt == "cheap tea1"
    assert request({"n": 2}, template={"prompt": "{% for i in range(n) %}x{% endfor %}"}).prompt == "xx"
    assert request({"range": "cheap"}, template={"prompt": "{{ range }}"}).prompt == "cheap"


def test_a_template_that_is_only_a_column_keeps_its_type() -> None:
    template = {"messages": "{{ chat }}", "max_tokens": "{{ limit }}", "stop": "{{ stop }}"}
    record = {"chat": MESSAGES, "limit": 5, "stop": ["a", "b"]}
    found = request(record, template=template)
    assert (found.max_tokens, found.stop, found.messages[0].content) == (5, ("a", "b"), "Hi")
    assert request(record | {"limit": None}, template=template).max_tokens == 256
    assert request({"number": 5.5}, template={"prompt": "{{ number }}"}).prompt == "5.5"


def test_a_row_that_its_template_fails_on_is_an_error() -> None:
    assert "ZeroDivisionError" in error({"x": 0}, template={"prompt": "1 / {{ 1 / x }}"}).message
    assert "'text' is undefined" in error({"line": '{"other": 1}'}, template=LABEL).message
    assert "unsafe" in error({"x": "a"}, template={"prompt": "{{ x.__class__.__mro__ }}!"}).message


@pytest.mark.parametrize(
    ("columns", "config", "needed"),
    [
        (("id", "prompt", "seed", "label"), {}, ("id", "prompt", "seed")),
        (("custom_id", "url", "body", "seed"), {}, ("custom_id", "url", "body")),
        (("text", "label", "seed"), {"template": LABEL}, ("text",)),
        (("line",), {}, ("line",)),
    ],
)
def test_a_reader_says_which_columns_it_looks_at(
    columns: tuple[str, ...], config: dict[str, Any], needed: tuple[str, ...]
) -> None:
    assert RowReader(RequestConfig(**config), columns, "s").columns == needed


def test_text_that_is_not_utf8_spoils_its_own_row_only() -> None:
    buffers = pa.array([b"good", b"\xff", None]).buffers()
    table = pa.table({"prompt": pa.Array.from_buffers(pa.string(), 3, buffers, null_count=1)})
    good, bad, null = records(table, ["prompt"])
    assert (good, null) == ({"prompt": "good"}, {"prompt": None})
    assert "utf-8" in error(bad).message
    assert records(table, []) == [{}, {}, {}]


def test_arrows_structs_are_read_without_their_null_fields() -> None:
    body = [{"prompt": "Hi", "seed": None}, {"prompt": "Hi", "seed": 5}]
    table = pa.table({"url": ["/v1/completions"] * 2, "body": body})
    assert [request(record).seed for record in records(table, ["url", "body"])] == [None, 5]


def test_arrows_maps_are_objects() -> None:
    text = pa.map_(pa.string(), pa.string())
    columns = {
        "messages": pa.array([[{"role": "user", "content": "Hi"}]] * 2, pa.list_(text)),
        "logit_bias": pa.array([{5: 1.0}, {}], pa.map_(pa.int32(), pa.float64())),
        "metadata": pa.array([{"a": "b"}, None], text),
    }
    first, second = (request(record) for record in records(pa.table(columns), tuple(columns)))
    assert first == request({"messages": MESSAGES, "logit_bias": {"5": 1.0}, "metadata": {"a": "b"}})
    assert second == request({"messages": MESSAGES})


def test_a_map_that_has_a_key_twice_spoils_its_own_row_only() -> None:
    column = pa.array([[("5", 1), ("5", 2)], [("5", 1)]], pa.map_(pa.string(), pa.float64()))
    bad, good = records(pa.table({"prompt": ["Hi"] * 2, "logit_bias": column}), ["prompt", "logit_bias"])
    assert error(bad).param == "logit_bias"
    assert request(good).logit_bias == ((5, 1.0),)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
forms = st.sampled_from(
    [
        ("prompt", "messages", "input", "id", "seed", "tools"),
        ("custom_id", "method", "url", "body"),
        ("line",),
        ("text", "id"),
    ]
)


@given(forms.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, values))))
def test_nothing_in_a_row_raises(record: dict[str, Any]) -> None:
    row = read(record, template=LABEL) if "text" in record else read(record)
    assert row.custom_id.encode()
    if isinstance(row.request, RowError):
        row.request.message.encode()


def test_a_prompt_beside_messages_names_the_key_that_says_which_is_meant() -> None:
    """nightherd's issue 12: all rows of a data set with both columns failed, without a cure."""
    both = {"messages": [{"role": "user", "content": "?"}], "prompt": "?"}
    row = RowReader(RequestConfig(), list(both), "s").read(both, 0)
    assert isinstance(row.request, RowError)
    assert "has messages and prompt" in row.request.message
    assert "request.endpoint" in row.request.message and "/v1/chat/completions" in row.request.message
    row = RowReader(RequestConfig(endpoint="/v1/completions"), list(both), "s").read(both, 0)
    assert isinstance(row.request, CompletionRequest)


def test_a_jobs_template_variables_hold_for_rows_that_set_others() -> None:
    """vLLM#17356: chat_template_kwargs in the job's defaults and in a row."""
    config = RequestConfig(defaults={"chat_template_kwargs": {"enable_thinking": False, "effort": "low"}})
    reader = RowReader(config, ("messages", "chat_template_kwargs"), "s")
    said = [{"role": "user", "content": "Hi"}]
    for own, expected in (
        (None, {"enable_thinking": False, "effort": "low"}),
        ({"effort": "high", "enable_thinking": None}, {"enable_thinking": False, "effort": "high"}),
        ('{"enable_thinking": true}', {"enable_thinking": True, "effort": "low"}),
    ):
        request = reader.read({"messages": said, "chat_template_kwargs": own}, 0).request
        assert isinstance(request, ChatRequest)
        assert request.template_options == expected
