"""GGUFs that llama-gguf-split has cut into several files."""

from __future__ import annotations

import re
from pathlib import Path

_PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf(?P<query>\?.*)?")


def parts_of(path: str) -> list[str]:
    """The files of the model that a path or URL names a part of, in order; itself alone for a whole one.

    "-00001-of-00001" is a whole one.
    """
    found = _PART.fullmatch(path)
    if not found or int(found["parts"]) < 2:
        return [path]
    end = f"-of-{found['parts']}.gguf{found['query'] or ''}"
    return [f"{found['stem']}-{part:05}{end}" for part in range(1, int(found["parts"]) + 1)]


def model_name(file: Path) -> str:
    """A GGUF's name without its suffix, and without the number of its part."""
    found = _PART.fullmatch(file.name)
    return found["stem"] if found else file.stem
