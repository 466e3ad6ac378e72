"""Labels in their places: how the model spells them, and where a constraint leaves only a few (issue 10)."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.constraint.json_place import JsonPlace
from pipeline.constraint.label_guide import LabelGuide
from pipeline.constraint.spelling import Speller
from pipeline.engine.fakes.fake import EOS, IM_END, IM_START
from pipeline.engine.sampling.labels import Labels
from tests.constraint.test_guides import GUIDES, LETTERS, WORDS, allowed, constraint, of_schema, schemas

CONTROLS = {"<|im_start|>": 1, "<|im_end|>": 2}
SPELLER = Speller(WORDS, CONTROLS)
texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12)
words = st.sampled_from(
    "art article artificial sport Sport SPORT 7 70 707 no not é 狗 狗狗 C++ a-b f(x) ok?".split()
)
labels = st.lists(words | texts, min_size=2, max_size=12, unique=True)
PROMPTS = [
    "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n",
    "Answer:",
    "Answer: ",
    'The topic is "',
    "Numbers: 1, 2, ",
    "art",
    "<|im_start|>",
    "no new line\n\n",
    "狗",
]


def tokens_of(text: str) -> list[int]:
    return WORDS.tokenize(text, add_special=False, parse_special=True)


def spelled(found: Labels, due: list[int]) -> list[bytes]:
    return [b"".join(map(WORDS.piece, (*due, *tokens))) for tokens in found.tokens]


@settings(deadline=None, max_examples=60)
@given(choices=labels, prompt=st.sampled_from(PROMPTS))
@example(choices=["art", "<|im_end|>"], prompt=PROMPTS[0])
def test_a_label_is_spelled_as_the_tokenizer_spells_it_behind_the_prompt(choices, prompt):
    before = tokens_of(prompt)
    guide = GUIDES["words"][1].guide(constraint(guided_choice=choices), before)
    due = guide.forced()
    for token in due:
        guide.accept(token)
    found = guide.labels()
    assert found is not None and found.names == tuple(choices)
    kept = before[: len(before) - guide.healed]
    assert len(kept) >= 1
    for choice, tokens, ends in zip(choices, found.tokens, found.ends, strict=True):
        whole = [*kept, *due, *tokens]
        assert b"".join(map(WORDS.piece, whole[len(kept) :]))[guide.skipped :] == choice.encode()
        # A control token's text in a label is text: it must never end the answer.
        assert not any(map(WORDS.is_control, tokens))
        if len(before) > 1 and not any(control in choice for control in CONTROLS):
            assert whole == tokens_of(prompt + choice)
        begins = any(other != choice and other.startswith(choice) for other in choices)
        assert ends == (WORDS.end_tokens if begins else ())


@settings(deadline=None, max_examples=100)
@given(before=st.lists(st.integers(3, 49151), max_size=20), text=texts)
def test_whatever_stands_before_a_text_its_tokens_say_it(before, text):
    found = SPELLER.spell(before, text, most_back=len(before))
    assert SPELLER.text(found.tokens)[found.extra :] == text.encode()
    assert SPELLER.text(found.tokens)[: found.extra] == SPELLER.text(before[len(before) - found.back :])
    assert SPELLER.spell(before, text, most_back=0).back == 0


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-999, 999)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def scalars_of(value: Any, path: str = "") -> list[tuple[str | None, Any]]:
    if isinstance(value, dict):
        return [
            each
            for name, inner in value.items()
            for each in scalars_of(inner, f"{path}.{name}" if path else name)
        ]
    if isinstance(value, list):
        return [each for at, inner in enumerate(value) for each in scalars_of(inner, f"{path}[{at}]")]
    return [(path or None, value)]


@given(values, st.booleans())
def test_a_place_knows_its_value_and_the_path_to_it(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    place, found, before = JsonPlace(), [], (False, 0, b"", None)
    for byte in (*text, None):
        scalar, number, begun, path = before
        if byte is not None:
            place.feed(bytes([byte]))
        now = (place.in_scalar, place.number, place.value, place.path)
        if scalar and begun and (not now[2] or now[1] != number or byte is None):
            found.append((path, begun))
        before = now
    expected = scalars_of(value)
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (_, begun), (_, scalar) in zip(found, expected, strict=True):
        assert json.loads(begun + b'"' if isinstance(scalar, str) else begun) == scalar


def decided(guide: LabelGuide, vocabulary: Any, random: Random) -> tuple[str, list[tuple[Labels, int]]]:
    """A text that follows the guide as the engine does, and its decisions."""
    text, found = b"", []

    def take(token: int) -> None:
        nonlocal text
        guide.accept(token)
        text += vocabulary.piece(token)

    for _ in range(400):
        while forced := guide.forced():
            for token in forced:
                take(token)
        if labels := guide.labels():
            chosen = random.randrange(len(labels.names))
            guide.choose(chosen)
            found.append((labels, chosen))
            continue
        if guide.done:
            break
        following = [token for token in allowed(guide, vocabulary) if token not in vocabulary.end_tokens]
        if not following or (guide.complete and random.random() < 0.2):
            break
        take(random.choice(following))
    return text.decode(errors="replace"), found


@pytest.mark.parametrize("name", GUIDES)
@settings(deadline=None, max_examples=30)
@given(schema=schemas, seed=st.integers(0, 2**32))
@example({"type": "array", "items": {"enum": [None, "", "0"]}, "minItems": 2, "maxItems": 4}, 766)
@example({"type": "array", "items": {"enum": [None, "", "\xa0"]}, "minItems": 2, "maxItems": 4}, 766)
def test_a_decided_value_is_the_value_of_its_path(name, schema, seed):
    vocabulary, guides = GUIDES[name]
    tree = {"type": "object", "properties": {"leaf": {"type": "boolean"}}, "required": ["leaf"]}
    guide = guides.guide(of_schema(schema | {"$defs": {"tree": tree}}))
    text, found = decided(guide, vocabulary, Random(seed))
    if not guide.complete:
        return
    written = scalars_of(json.loads(text))
    for labels, chosen in found:
        name = labels.names[chosen]
        assert any(path == labels.place and name in (value, json.dumps(value)) for path, value in written)


SCHEMA = {
    "type": "object",
    "properties": {
        "topic": {"enum": ["art", "article", "sports", "C++", 'a"b']},
        "stars": {"type": "integer", "minimum": 1, "maximum": 10},
        "ok": {"type": "boolean"},
        "maybe": {"anyOf": [{"enum": ["x", "y"]}, {"type": "null"}]},
        "mode": {"type": "string", "pattern": "^(fast|slow)$"},
        "notes": {"type": "array", "items": {"$ref": "#/$defs/kind"}, "minItems": 2, "maxItems": 2},
        "note": {"type": "string", "maxLength": 8},
        "size": {"type": "integer", "minimum": 0, "maximum": 999},
        "last": {"enum": [1.5, 2, True, None]},
    },
    "$defs": {"kind": {"enum": ["b", "a"]}},
    "required": ["topic", "stars", "ok", "maybe", "mode", "notes", "note", "size", "last"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", GUIDES)
def test_what_is_one_of_a_few_is_decided_as_a_label(name):
    vocabulary, guides = GUIDES[name]
    text, found = decided(guides.guide(of_schema(SCHEMA)), vocabulary, Random(3))
    places = {labels.place: labels.names for labels, _ in found}
    assert places == {
        "topic": ("art", "article", "sports", "C++", 'a"b'),
        "stars": tuple(map(str, range(1, 11))),
        "ok": ("false", "true"),
        "maybe": ("x", "y", "null"),
        "mode": ("fast", "slow"),
        "notes[0]": ("b", "a"),
        "notes[1]": ("b", "a"),
        "last": ("1.5", "2", "true", "null"),
    }
    json.loads(text)


def test_the_end_of_a_label_that_begins_another_is_part_of_it():
    guide = GUIDES["words"][1].guide(of_schema(SCHEMA))
    for token in guide.forced():
        guide.accept(token)
    topic = guide.labels()
    assert topic is not None
    ends = dict(zip(topic.names, topic.ends, strict=True))
    assert {name for name, found in ends.items() if found} == {"art"}
    assert all(WORDS.piece(token).startswith(b'"') for token in ends["art"])
    guide.choose(topic.names.index("art"))
    forced = guide.forced()
    assert b"".join(map(WORDS.piece, forced)).startswith(b'art"')


def test_a_string_has_its_end_beside_values_that_are_no_strings():
    """Whether a label's end is a quote is for that label to say: null comes first here."""
    labels = GUIDES["words"][1].guide(of_schema({"enum": [None, "art", "article"]})).labels()
    assert labels is not None
    ends = dict(zip(labels.names, labels.ends, strict=True))
    assert {name for name, found in ends.items() if found} == {"art"}
    assert all(WORDS.piece(token).startswith(b'"') for token in ends["art"])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"guided_regex": "^(yes|no|maybe not)$"}, ("no", "yes", "maybe not")),
        ({"guided_regex": "[a-c]{1,2}x"}, 12),
        ({"grammar": 'start: "yes" | "no"'}, ("no", "yes")),
        ({"guided_regex": "[a-z]+"}, None),
        ({"guided_regex": "[0-9]{9}"}, None),
        ({"response_format": {"type": "json_object"}}, None),
    ],
)
def test_a_whole_answer_that_is_one_of_a_few_is_a_label_by_any_constraint(fields, expected):
    found = GUIDES["words"][1].guide(constraint(**fields)).labels()
    names = found.names if found else None
    assert (len(names) if isinstance(expected, int) and names else names) == expected


def test_labels_behind_a_fixed_text_are_decided():
    guide = GUIDES["words"][1].guide(constraint(guided_regex="[0-9]+\n\nAnswer: (yes|no)"))
    text, found = decided(guide, WORDS, Random(5))
    assert [labels.names for labels, _ in found] == [("no", "yes")]
    assert text.endswith(("yes", "no"))


NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


def test_the_function_that_is_called_is_a_label():
    tools = [
        {"type": "function", "function": {"name": name, "parameters": NOTHING}}
        for name in ("get_weather", "get_time")
    ]
    guide = GUIDES["words"][1].guide(constraint(tools=tools, tool_choice="required"))
    _, found = decided(guide, WORDS, Random(1))
    assert found[0][0].place == "name"
    assert set(found[0][0].names) == {"get_weather", "get_time"}


def test_letters_have_labels_too():
    guide = GUIDES["letters"][1].guide(constraint(guided_choice=["ab", "a"]), [IM_START, *b"assistant\n"])
    assert guide.forced() == [ord("a")]
    guide.accept(ord("a"))
    found = guide.labels()
    assert found and found.tokens == ((ord("b"),), ()) and found.ends == ((), (EOS, IM_END))
    assert LETTERS.end_tokens == (EOS, IM_END)


def test_no_text_is_written_in_fragments():
    """Report: the model's own spelling is what is allowed, in fixed texts and in free strings."""
    schema = {"type": "object", "properties": {"note": {"type": "string"}, "last": {"type": "string"}}}
    schema |= {"required": ["note", "last"], "additionalProperties": False}
    guide = GUIDES["words"][1].guide(of_schema(schema), tokens_of(PROMPTS[0]))

    def one(text: str) -> int:
        (token,) = tokens_of(text)
        return token

    for token in guide.forced():
        guide.accept(token)
    assert not guide.spells(one('":'))  # A string follows: `":"` is one token.
    assert guide.spells(one('":"'))
    guide.accept(one('":"'))
    guide.accept(one("neg"))
    assert not guide.spells(one("ative"))
    guide = GUIDES["words"][1].guide(of_schema(schema), tokens_of(PROMPTS[0]))
    for token in [*guide.forced(), one('":"'), one("negative")]:
        guide.accept(token)
    assert not guide.spells(one('"')) and not guide.spells(one('",'))
    assert guide.spells(one('","')) and guide.spells(one(" and"))
