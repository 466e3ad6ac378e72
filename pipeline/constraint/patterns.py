"""Regular expressions with look-aheads as several without: llguidance's engine has intersections instead."""

from __future__ import annotations

import re

_ONE = r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\[sdw]"
_THROUGHOUT = re.compile(rf"\^?({_ONE})([*+])\$")
_FIRST = re.compile(rf"({_ONE})")
_SOMEWHERE = re.compile(rf"\.\*\??({_ONE})")
_LITERAL = re.compile(r"((?:\\[^\w\s]|[^\\.*+?|()\[\]{}^$])+)(\$?)")
_SHORT = {r"\s": r"\S", r"\d": r"\D", r"\w": r"\W"}

# What pydantic 2.12 writes for Decimal(max_digits=...), with and without decimal_places.
_DECIMAL = re.compile(
    r"\^\(\?!\^\[-\+\.\]\*\$\)\[\+-\]\?0\*\(\?:\\d\{0,(\d+)\}\|"
    r"\(\?=\[\\d\.\]\{1,(\d+)\}0\*\$\)\\d(?:\{0,\d+\}|\*)\\\.\\d(?:\{0,(\d+)\}|\*)0\*\$\)"
)
_MOST_DIGITS = 40
"""Digits of a Decimal at most; Python's own context has 28."""


def has_look_around(pattern: str) -> bool:
    return any(mark in pattern for mark in ("(?=", "(?!", "(?<=", "(?<!"))


def without_look_ahead(pattern: str) -> list[str] | None:
    """Patterns that a text matches together if, and only if, it matches `pattern`; None where there are none.

    Served are look-aheads at the beginning: (?=...) whatever it holds; (?!...) of a literal text, or of one
    kind of character, as the first, anywhere, or throughout.
    For a Decimal with max_digits, only what is meant is matched: the pattern itself lets far more through.
    """
    if decimal := _DECIMAL.fullmatch(pattern):
        whole, digits, places = (int(group) if group else None for group in decimal.groups())
        return [_decimal(whole or 0, (digits or 1) - 1, places)]
    if not pattern.startswith("^"):
        return None
    found, rest = [], pattern[1:]
    while rest.startswith(("(?=", "(?!")):
        mark, (inside, rest) = rest[2], _group(rest)
        wanted = f"^(?:{inside})" if mark == "=" else _opposite(inside)
        if wanted is None or has_look_around(inside):
            return None
        found.append(wanted)
    return None if has_look_around(rest) else [*found, f"^{rest}"]


def _group(text: str) -> tuple[str, str]:
    """What a group at the beginning of `text` holds behind its three-letter mark, and what follows it."""
    depth, at, in_class = 0, 0, False
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
        elif char in "()":
            depth += 1 if char == "(" else -1
            if not depth:
                return text[3:at], text[at + 1 :]
        at += 1
    return text[3:], ""


def _opposite(inside: str) -> str | None:
    """A pattern of the texts that `^(?:inside)` doesn't match."""
    if throughout := _THROUGHOUT.fullmatch(inside):
        return _other(throughout[1]) if throughout[2] == "*" else f"^$|{_other(throughout[1])}"
    if first := _FIRST.fullmatch(inside):
        return f"^(?:{_other(first[1])}|$)"
    if somewhere := _SOMEWHERE.fullmatch(inside):
        return f"^{_other(somewhere[1])}*$"
    if literal := _LITERAL.fullmatch(inside):
        return _not_literal(re.sub(r"\\(.)", r"\1", literal[1]), whole=bool(literal[2]))
    return None


def _not_literal(text: str, *, whole: bool) -> str:
    """Texts that don't begin with `text`, or aren't it."""
    parts = [f"{re.escape(text[:n])}(?:[^{re.escape(char)}]|$)" for n, char in enumerate(text)]
    parts += [rf"{re.escape(text)}[\s\S]"] if whole else []
    return f"^(?:{'|'.join(parts)})"


def _other(characters: str) -> str:
    """The class of all other characters."""
    if characters in _SHORT:
        return _SHORT[characters]
    return f"[{characters[2:]}" if characters.startswith("[^") else f"[^{characters[1:]}"


def _decimal(whole: int, digits: int, places: int | None) -> str:
    """whole, places: digits before and behind the point at most. digits: of both together."""
    digits = min(digits, _MOST_DIGITS)
    if places is None:
        parts = [rf"\d{{{n}}}\.\d{{1,{digits - n}}}" for n in range(1, digits)]
        return rf"^[+-]?(?:\d{{1,{digits}}}|0?\.\d{{1,{digits}}}{''.join(f'|{part}' for part in parts)})$"
    places = min(places, digits)
    if not whole:
        return rf"^[+-]?0?\.\d{{1,{places}}}$"
    behind = rf"\.\d{{1,{places}}}"
    return rf"^[+-]?(?:\d{{1,{whole}}}{f'(?:{behind})?|{behind}' if places else ''})$"
