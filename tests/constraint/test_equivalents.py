"""What people's pydantic models bring: served by an equivalent, or refused by its path.

The schemas are those that pydantic 2.12 writes (later versions leave the pattern of a Decimal out).
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from enum import Enum
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field, TypeAdapter, create_model

from pipeline.constraint.patterns import without_look_ahead
from pipeline.errors import RowError
from tests.constraint.test_guides import GUIDES, LETTERS, WHERE, constraint, of_schema, refusal, walk

DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
PRICE = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)"
FIVE = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,5}|(?=[\d.]{1,6}0*$)\d*\.\d*0*$)"


class Colour(Enum):
    red = "red"
    blue = "blue"
    green = "green"


def takes(schema: dict[str, Any], text: str) -> bool:
    """Whether `text`, byte by byte, is a whole answer."""
    guide = GUIDES["letters"][1].guide(of_schema(schema))
    for byte in text.encode():
        try:
            guide.accept(byte)
        except RowError:
            return False
    return guide.complete


def said(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@given(st.text("0129.+-", max_size=8))
@settings(deadline=None, max_examples=300)
def test_a_decimal_is_what_its_pattern_says(text: str) -> None:
    wanted = re.search(DECIMAL, text) is not None
    assert takes({"type": "string", "pattern": DECIMAL}, said(text)) == wanted


@pytest.mark.parametrize(("pattern", "digits", "places"), [(PRICE, 5, 2), (FIVE, 5, None)])
def test_a_decimal_of_so_many_digits_is_valid(pattern: str, digits: int, places: int | None) -> None:
    valid = TypeAdapter(Annotated[Decimal, Field(max_digits=digits, decimal_places=places)])
    schema = {"anyOf": [{"type": "null"}, {"type": "string", "pattern": pattern}]}
    for text in ("0", "7", "-12", "123", "123.4", "+1.25", ".5", "0.05"):
        assert takes(schema, said(text))
        valid.validate_python(text)
    for text in ("", ".", "-", "123456", "1.23456", "1e5", "1,5", "12345678.123"):
        assert not takes(schema, said(text))


LOOKING = [
    r"^(?=.*[A-Z])(?=.*\d).{3,}$",
    r"^(?!\s*$).+",
    r"^(?!\s+$)[A a]*$",
    r"^(?!0)\d+$",
    r"^(?![0-9])\w+$",
    r"^(?!.*[<>])[a-z<>]+$",
    r"^(?!foo)[a-z]*$",
    r"^(?!a-$)[a-]+$",
    r"^(?!\.)[.a]+$",
    r"^(?=(a|b\)))[ab)]+$",
    DECIMAL,
]


@pytest.mark.parametrize("pattern", LOOKING)
def test_look_aheads_at_the_beginning_are_conditions_of_their_own(pattern: str) -> None:
    parts = without_look_ahead(pattern)
    assert parts
    for size in range(5):
        for letters in product("aA0.- <)f", repeat=size):
            text = "".join(letters)
            assert all(re.search(part, text) for part in parts) == bool(re.search(pattern, text)), text
    text = walk(
        GUIDES["letters"][1].guide(of_schema({"type": "string", "pattern": pattern})), LETTERS, Random(0)
    )
    assert re.search(pattern, json.loads(text))


@pytest.mark.parametrize(
    "pattern", [r"a(?=b)", r"^(?!a|b)c", r"^(?=a(?!b)).*", r"(?<!a)b", r"^(?!foo|bar).*$"]
)
def test_other_looking_around_is_left_to_be_refused(pattern: str) -> None:
    assert without_look_ahead(pattern) is None
    error = refusal(of_schema({"properties": {"price": {"type": "string", "pattern": pattern}}}))
    assert (error.code, error.param) == ("unsupported_parameter", f"{WHERE}.properties.price.pattern")


def test_a_set_of_an_enum_is_any_list_of_different_ones() -> None:
    schema = TypeAdapter(set[Colour]).json_schema()
    assert schema["uniqueItems"]
    names = [colour.value for colour in Colour]
    for size in range(4):
        for some in permutations(names, size):
            assert takes(schema, said(some))
    for wrong in (["red", "red"], ["red", "blue", "red"], ["pink"]):
        assert not takes(schema, said(wrong))


@pytest.mark.parametrize(
    "kind", [set[bool], set[Literal["a", "b"] | None], set[Annotated[int, Field(ge=1, le=3)]]]
)
@pytest.mark.parametrize("bounds", [(0, None), (1, 2), (2, 3)])
def test_every_set_is_valid(kind: Any, bounds: tuple[int, int | None]) -> None:
    least, most = bounds
    schema = TypeAdapter(Annotated[kind, Field(min_length=least, max_length=most)]).json_schema()
    guide = GUIDES["letters"][1].guide(of_schema(schema))
    for seed in range(30):
        value = json.loads(walk(guide.copy(), LETTERS, Random(seed)))
        Draft202012Validator(schema).validate(value)


def test_a_set_of_many_values_comes_in_their_order_or_is_refused() -> None:
    def of(count: int, **bounds: int) -> dict[str, Any]:
        return {"type": "array", "uniqueItems": True, "items": {"enum": [*range(count)]}, **bounds}

    assert takes(of(8), "[0,3,7]") and not takes(of(8), "[3,0]") and not takes(of(8), "[3,3]")
    assert takes(of(30, maxItems=2), "[29,0]") and not takes(of(30, maxItems=2), "[29,29]")
    error = refusal(of_schema({"properties": {"tags": of(30)}}))
    assert (error.code, error.param) == ("unsupported_parameter", f"{WHERE}.properties.tags.uniqueItems")
    assert "maxItems" in error.message


def test_a_set_of_any_text_is_refused_with_what_to_do() -> None:
    schema = {"$defs": {"A": TypeAdapter(set[str]).json_schema()}, "properties": {"x": {"$ref": "#/$defs/A"}}}
    error = refusal(of_schema(schema))
    assert (error.code, error.param) == ("unsupported_parameter", f"{WHERE}.$defs.A.uniqueItems")
    assert "list instead of set" in error.message
    assert takes(TypeAdapter(Annotated[set[str], Field(max_length=1)]).json_schema(), '["any"]')


def test_a_mapping_by_an_enum_has_its_names_only() -> None:
    schema = TypeAdapter(dict[Colour, int]).json_schema()
    assert "propertyNames" in schema
    for good in ({}, {"red": 1}, {"red": 1, "green": 3}):
        assert takes(schema, said(good))
    for bad in ({"pink": 1}, {"red": "1"}, {"red": 1, "red ": 2}):
        assert not takes(schema, said(bad))


@pytest.mark.parametrize("bounds", [(1, None), (2, None), (0, 1), (1, 2), (3, 3)])
def test_a_mapping_of_so_many_names_is_valid(bounds: tuple[int, int | None]) -> None:
    least, most = bounds
    schema = TypeAdapter(Annotated[dict[Colour, int], Field(min_length=least, max_length=most)]).json_schema()
    guide = GUIDES["letters"][1].guide(of_schema(schema))
    for seed in range(30):
        Draft202012Validator(schema).validate(json.loads(walk(guide.copy(), LETTERS, Random(seed))))


@pytest.mark.parametrize(
    ("names", "good", "bad"),
    [
        ({"pattern": "^[a-z]{2}$"}, "ab", "a"),
        ({"minLength": 2, "maxLength": 3}, "abc", "abcd"),
        ({"maxLength": 3}, "", "abcd"),
        ({"format": "uuid"}, "12345678-1234-1234-1234-1234567890ab", "1234"),
        ({"format": "date"}, "2026-02-28", "2026-02-31"),
        ({"const": "a"}, "a", "b"),
        ({"type": "string"}, "any", None),
        (True, "any", None),
        (False, None, "any"),
    ],
)
def test_names_of_a_kind(names: Any, good: str | None, bad: str | None) -> None:
    schema = {"type": "object", "propertyNames": names, "additionalProperties": {"type": "integer"}}
    assert good is None or takes(schema, said({good: 1}))
    assert bad is None or not takes(schema, said({bad: 1}))


def test_names_that_can_be_no_string_are_refused() -> None:
    error = refusal(of_schema({"properties": {"by": {"propertyNames": {"enum": [1, 2]}}}}))
    assert (error.code, error.param) == ("unsupported_parameter", f"{WHERE}.properties.by.propertyNames")


@pytest.mark.parametrize("form", ["path", "file-path", "directory-path", "password", "binary"])
def test_formats_that_any_text_has(form: str) -> None:
    assert takes({"type": "string", "format": form}, '"a/b.txt"')
    assert TypeAdapter(Path).json_schema()["format"] == "path"


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("uuid4", "12345678-1234-4234-8234-1234567890ab", "12345678-1234-1234-8234-1234567890ab"),
        ("base64", "YWI=", "YWI"),
        ("ipvanyaddress", "10.0.0.1", "10.0.0.256"),
        ("ipv4interface", "10.0.0.1/24", "10.0.0.1/33"),
    ],
)
def test_formats_that_a_pattern_says(form: str, good: str, bad: str) -> None:
    schema = {"anyOf": [{"type": "string", "format": form}, {"type": "null"}]}
    assert takes(schema, said(good)) and not takes(schema, said(bad))


def test_a_tools_parameters_have_their_equivalents_too() -> None:
    schema = create_model("Paint", c=(set[Colour], ...)).model_json_schema()
    tool = {"type": "function", "function": {"name": "paint", "parameters": schema}}
    guide = GUIDES["letters"][1].guide(constraint(tools=[tool], tool_choice="required"))
    assert '"c":[' in walk(guide, LETTERS, Random(0))
