"""Whether a text that has only begun can still become calls without marks."""

from __future__ import annotations

import keyword
import re

_TAG = "<|python_tag|>"
# Code in which no string has begun, its comments too.
_CODE = re.compile(r"(?:[^'\"#\\]|#[^\n]*\n)*")
_COMMENT = re.compile(r"#[^\n]*\n")
_WORDS = re.compile(r"(?<![\w.])([^\W\d]\w*)[ \t]+(?=([^\W\d]\w*)\W)")
# What stands in no Python outside of strings: such signs, and a word behind a number.
_SIGNS = re.compile(r"[?$`]|![^=]|(?<!\w)\d+\.?[ \t]+(?=([^\W\d]\w*)\W)")
_KEYWORDS = {*keyword.kwlist, *keyword.softkwlist}


def can_become_bare(text: str) -> bool:
    """False once the text is neither JSON nor Python, however it goes on. True is a guess."""
    start = text.lstrip()
    if _TAG.startswith(start):
        return True
    code = start.removeprefix(_TAG).lstrip()
    return code[:1] in ("", "{", "[") or not _is_prose(code)


def _is_prose(text: str) -> bool:
    """Two words side by side, or a sign that Python has not."""
    found = _CODE.match(text)
    assert found is not None, "it matches nothing, too"
    code = _COMMENT.sub("\n", found[0])
    beside = (match for pattern in (_SIGNS, _WORDS) for match in pattern.finditer(code))
    if any(not {*match.groups()} & _KEYWORDS for match in beside):
        return True
    return any(char > "\x7f" and not char.isspace() and not f"a{char}".isidentifier() for char in code)
