"""Keys as they are written down, one a line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError

_NAME = re.compile(r"[\w.@-]+")


@dataclass(frozen=True, slots=True)
class KeyLine:
    """One key. name: its owner's, "" where none is given. line: its number, from 1. begin: the key's first
    byte in the line, from 1."""

    name: str
    key: str
    line: int
    begin: int

    @property
    def shell(self) -> str:
        """A command that takes the key out of its lines."""
        return f"sed -n {self.line}p | cut -b {self.begin}-{self.begin + len(self.key.encode()) - 1}"


def key_lines(text: str, where: str) -> list[KeyLine]:
    """The keys of a text; lines that are empty or begin with `#` hold none.

    A line is `name:key` or `key`. The first colon ends the name, which has letters, digits, `.`, `_`, `-` and
    `@`; the key may have colons. Where what is before the first colon is no such name, the whole line is the
    key, and behind a colon at the very beginning, all the rest.
    where: the text's own name. Raises ConfigError for a name without a key, and for a key that comes twice.
    """
    found: dict[str, KeyLine] = {}
    for line in _lines(text):
        place = f"{where}: line {line.line}"
        if not line.key:
            raise ConfigError(f"{place} has no key behind {line.name or 'the colon'}: write name:key or key")
        if line.key in found:
            raise ConfigError(f"{place} has the key of line {found[line.key].line} once more")
        found[line.key] = line
    return list(found.values())


def _lines(text: str) -> Iterator[KeyLine]:
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            name, key = _split(entry)
            yield KeyLine(name, key, number, len(line.rstrip().removesuffix(key).encode()) + 1)


def _split(entry: str) -> tuple[str, str]:
    """Name and key."""
    name, colon, key = entry.partition(":")
    is_name = not name or _NAME.fullmatch(name.strip())
    return (name.strip(), key.strip()) if colon and is_name else ("", entry)
