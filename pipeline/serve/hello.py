"""What people are told when a service begins: who may ask, and how to try it."""

from __future__ import annotations

import json
import shlex
from typing import Literal

from pipeline.serve.keys import Keys

_NAMED = 5
"""The most owners of keys that are named."""


def hello(url: str, keys: Keys | None, kind: Literal["generate", "embed"]) -> list[str]:
    """url: up to /v1. No key is in the lines: a shell takes it from where it is kept."""
    return [_who(keys), f"try: {_curl(url, keys, kind)}"]


def _who(keys: Keys | None) -> str:
    if keys is None:
        return "no API key is asked for: only programs on this machine can reach the service"
    names = keys.names
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"API keys of {', '.join(names[:_NAMED])}{more}, from {keys.source}"


def _curl(url: str, keys: Keys | None, kind: Literal["generate", "embed"]) -> str:
    asked = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}
    path, body = ("chat/completions", asked) if kind == "generate" else ("embeddings", {"input": "Hello!"})
    key = f' -H "Authorization: Bearer $({keys.first})"' if keys else ""
    json_header = "-H 'Content-Type: application/json'"
    return f"curl {shlex.quote(f'{url}/{path}')}{key} {json_header} -d {shlex.quote(json.dumps(body))}"
