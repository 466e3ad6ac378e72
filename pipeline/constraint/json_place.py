"""Where a JSON text stands, byte by byte: inside of which value, and by which path that is reached."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

_BLANKS = b" \t\n\r"
_OPENERS = {0x7B: "}", 0x5B: "]"}
_QUOTE, _BACKSLASH = 0x22, 0x5C


@dataclass(slots=True)
class _Level:
    """An object or an array that isn't closed. name: of the property, or the item's number."""

    closer: str
    name: str | int


@dataclass(slots=True)
class JsonPlace:
    """The place behind the bytes that were fed; they must begin a valid JSON text.

    embedded: objects stand in other text, which is passed over. value: what was read of the scalar here.
    number: how many scalars, keys included, were begun before it.
    """

    embedded: bool = False
    value: bytes = b""
    number: int = 0
    _levels: list[_Level] = field(default_factory=list)
    _in_string: bool = False
    _escaped: bool = False
    _is_key: bool = False
    _expects_value: bool = True

    def copy(self) -> JsonPlace:
        return replace(self, _levels=[replace(level) for level in self._levels])

    @property
    def in_scalar(self) -> bool:
        """A scalar value, no key, goes on here or may begin."""
        if self.embedded and not self._levels:
            return False
        return not self._is_key and (self._expects_value or bool(self.value))

    @property
    def path(self) -> str | None:
        """As in "items[0].kind"; None for the whole text."""
        text = ""
        for level in self._levels:
            text += f"[{level.name}]" if isinstance(level.name, int) else f".{level.name}"
        return text.removeprefix(".") or None

    def feed(self, text: bytes) -> JsonPlace:
        for byte in text:
            if self._in_string:
                self._in_text(byte)
            elif self.embedded and not self._levels and byte != 0x7B:
                continue
            else:
                self._between(byte)
        return self

    def _in_text(self, byte: int) -> None:
        self.value += bytes([byte])
        if self._escaped:
            self._escaped = False
        elif byte == _BACKSLASH:
            self._escaped = True
        elif byte == _QUOTE:
            if self._is_key:
                self._levels[-1].name = str(json.loads(self.value.decode(errors="replace"), strict=False))
            self._in_string, self.value = False, b""

    def _between(self, byte: int) -> None:
        letter = chr(byte)
        if byte in _OPENERS:
            self._begin_value()
            is_object = letter == "{"
            self._levels.append(_Level(_OPENERS[byte], "" if is_object else 0))
            self._is_key, self._expects_value = is_object, not is_object
        elif byte == _QUOTE:
            self._begin_value()
            self._in_string, self.value = True, b'"'
        elif letter in "]}":
            self._levels.pop()
            self._is_key = self._expects_value = False
            self.value = b""
        elif letter == ",":
            self._next_item()
        elif letter == ":":
            self._is_key, self._expects_value = False, True
        elif byte not in _BLANKS:
            if not self.value:
                self._begin_value()
            self.value += bytes([byte])

    def _begin_value(self) -> None:
        self._expects_value = False
        self.number += 1

    def _next_item(self) -> None:
        level, self.value = self._levels[-1], b""
        if isinstance(level.name, int):
            level.name += 1
            self._expects_value = True
        else:
            self._is_key = True
