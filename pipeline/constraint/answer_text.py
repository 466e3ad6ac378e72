"""An answer as bytes under its constraint, and the few texts that it may go on with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from pipeline.constraint.constraints import Constraint
from pipeline.constraint.continuations import after, byte_tokenizer, following, scalars, wholes
from pipeline.constraint.json_place import JsonPlace

MOST_VALUES = 256
"""The most values that a place may have for them to count as labels."""

_BEFORE_A_WORD = re.compile(r"(?s:.*)\s")
_CLOSER = 32  # bytes behind a label that tell how its last token is spelled
_MOST_KNOWN = 1024
"""The most beginnings of answers, for each constraint, whose labels are remembered."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """What comes next, at least one text. Parallel tuples.

    place: the path of the JSON value; None where it is all the rest of the answer.
    names: the labels for people. texts: from here to the end of each label, without the quote that closes it.
    closers: what is sure to follow each, that quote first.
    """

    place: str | None
    names: tuple[str, ...]
    texts: tuple[bytes, ...]
    closers: tuple[bytes, ...]
    whole: bool = False


class AnswerText:
    """The bytes of one answer. Reading is cheap: it knows nothing of the model's vocabulary."""

    def __init__(self, matcher: LLMatcher, place: JsonPlace | None, enums: Sequence[Sequence[Any]]) -> None:
        """matcher: over `byte_tokenizer`. place: where the text is JSON. enums: the schema's, whose order
        labels have."""
        self._matcher, self._place, self._enums = matcher, place, enums
        # What comes after a beginning is the same in all answers under the constraint: copies share this.
        self._known: dict[bytes, Ahead | None] = {}
        self._tried = -1
        self.said = b""

    def copy(self) -> AnswerText:
        place = self._place.copy() if self._place else None
        copy = AnswerText(self._matcher.deep_copy(), place, self._enums)
        copy._known, copy._tried, copy.said = self._known, self._tried, self.said
        return copy

    def feed(self, text: bytes) -> None:
        self.said += text
        self._matcher.consume_tokens(list(text))
        if self._place:
            self._place.feed(text)

    def after(self, text: bytes) -> bytes:
        """What is sure to follow `text`, if it comes next; not all of it, where that is long."""
        following = after(self._matcher, text).compute_ff_bytes()[:_CLOSER]
        return following.decode(errors="ignore").encode()

    def ahead(self, *, after_forced: bool) -> Ahead | None:
        """The labels of which one comes next; each place is looked at once. after_forced: whether what was
        said last left no choice."""
        if self._matcher.is_error():
            return None
        if self._place:
            return self._value_ahead(self._place)
        return self._whole_ahead() if after_forced or not self.said else None

    def _whole_ahead(self) -> Ahead | None:
        found = wholes(self._matcher, MOST_VALUES)
        texts = [text for text in found or () if _is_text(text)]
        if not found or len(texts) < len(found):
            return None
        names = tuple(text.decode() for text in texts)
        if self.said:  # What was forced before may go on here; it is in no label's name.
            lead = _BEFORE_A_WORD.match(_shared(names))
            names = tuple(name[lead.end() if lead else 0 :] for name in names)
        return Ahead(None, names, tuple(texts), (b"",) * len(texts), whole=True)

    def _value_ahead(self, here: JsonPlace) -> Ahead | None:
        forced = self._matcher.compute_ff_bytes()
        place = here.copy().feed(forced)
        number = place.number + (not place.value)
        if not place.in_scalar or number == self._tried:
            return None
        self._tried = number
        if self.said in self._known:
            return self._known[self.said]
        found = self._values(place, forced)
        if len(self._known) < _MOST_KNOWN:
            self._known[self.said] = found
        return found

    def _values(self, place: JsonPlace, forced: bytes) -> Ahead | None:
        """The values that the scalar at `place` may have. forced: what is sure to come before the choice."""
        state = after(self._matcher, forced)
        values = scalars(state, place.value, MOST_VALUES)
        # From here on, rather than from where the value began.
        lead = forced[: max(0, len(forced) - len(place.value))]
        known = max(0, len(place.value) - len(forced))
        # What is left of a value can be spelled where it doesn't begin within a character.
        if values is None or not _is_text(place.value[:known]):
            return None
        by_value = _by_value(values, self._enums)
        return Ahead(
            place.path,
            tuple(name for name, _ in by_value),
            tuple(lead + _core(text)[known:] for _, text in by_value),
            tuple(_closer(state, text, len(place.value)) for _, text in by_value),
        )


def answer_text(constraint: Constraint, grammar: str) -> AnswerText | Ahead | None:
    """An answer under `constraint` before its first byte. grammar: of the constraint, without control tokens.

    Of a choice, the labels that it is one of. None where the grammar can't be followed byte by byte.
    """
    if constraint.kind == "choice":
        texts = tuple(text.encode() for text in constraint.choices)
        return Ahead(None, constraint.choices, texts, (b"",) * len(texts), whole=True)
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0)
    if matcher.is_error():
        return None
    if constraint.kind in ("json_schema", "json_object", "tools"):
        place = JsonPlace(embedded=constraint.kind == "tools")
        return AnswerText(matcher, place, enums_of(json.loads(constraint.text)))
    return AnswerText(matcher, None, ())


def enums_of(schema: Any) -> list[list[Any]]:
    """The lists of values in a JSON schema, in its order."""
    found: list[list[Any]] = []
    if isinstance(schema, dict):
        for key, value in schema.items():
            found += [value] if key == "enum" and isinstance(value, list) else []
            found += [[value]] if key == "const" else []
    items = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return found + [values for item in items for values in enums_of(item)]


def _by_value(texts: Iterable[bytes], enums: Sequence[Sequence[Any]]) -> list[tuple[str, bytes]]:
    """Each value's name and text: of several ways to write it, as JSON is written mostly."""
    found: dict[tuple[str, Any], bytes] = {}
    for text in sorted(texts, key=lambda text: (text != _usual(text), len(text), text)):
        found.setdefault(_key(json.loads(text)), text)
    ranks: dict[tuple[str, Any], int] = {}
    for values in enums:
        keys = [_key(value) for value in values if not isinstance(value, dict | list)]
        for key in keys if found.keys() >= set(keys) else ():
            ranks.setdefault(key, len(ranks))
    return [
        (key[1] if key[0] == "str" else text.decode(), text)
        for key, text in sorted(
            found.items(), key=lambda item: (ranks.get(item[0], len(ranks)), *_place(item[0]))
        )
    ]


def _key(value: Any) -> tuple[str, Any]:
    """Equal for values that JSON schema takes for equal."""
    kind = (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )
    return kind, value


def _place(key: tuple[str, Any]) -> tuple[str, float, str]:
    """Numbers by size, other values by their text."""
    kind, value = key
    return (kind, value, "") if kind == "number" else (kind, 0, str(value))


def _usual(text: bytes) -> bytes:
    return json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace")


def _core(text: bytes) -> bytes:
    """A scalar without the quote that closes it."""
    return text[:-1] if text.startswith(b'"') else text


def _closer(state: LLMatcher, text: bytes, begun: int) -> bytes:
    """What is sure to follow a scalar, of which the first `begun` bytes are read, without its last quote."""
    closed = after(state, text[begun:])
    quote = b'"' if text.startswith(b'"') else b""
    allowed, may_end = following(closed)
    enders = bytes(byte for byte in allowed if quote or byte in b",}]")
    if may_end or len(enders) != 1:
        return quote
    rest = enders + after(closed, enders).compute_ff_bytes()
    return (quote + rest)[:_CLOSER].decode(errors="ignore").encode()


def _shared(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    pairs = zip(first, last, strict=False)
    return first[: next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))]


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
