"""How requests begin, as hashes that two requests share as far as their prompts begin alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import blake2b
from itertools import accumulate
from typing import Any

BLOCK = 256
"""Characters of a prompt for each hash: some 64 tokens, fewer are hardly worth a detour."""
MOST_BLOCKS = 32
_FIRST = ("system", "tools", "response_format", "chat_template_kwargs", "system")
"""Fields that chat templates write in front of the messages."""


def beginnings(body: bytes) -> list[str]:
    """A hash for each whole block of the request's prompt, the first block first; each covers all before it.

    Empty for a body that is no request: the replica that gets it says what is wrong."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return []
    if not isinstance(request, dict):
        return []
    text = "".join(_text(request))
    blocks = [text[at : at + BLOCK] for at in range(0, len(text) - BLOCK + 1, BLOCK)]
    chain = accumulate(blocks, lambda before, block: _hash(before + block), initial="")
    return list(chain)[1:]


def _text(request: dict[str, Any]) -> Iterator[str]:
    """What the model reads first, up to the most that is looked at."""
    left = BLOCK * MOST_BLOCKS
    for part in _parts(request):
        yield part[:left]
        left -= len(part)
        if left <= 0:
            return


def _parts(request: dict[str, Any]) -> Iterator[str]:
    messages = request.get("messages")
    if isinstance(messages, list):
        yield from (_plain(request[name]) for name in _FIRST if request.get(name) is not None)
        yield from map(_plain, messages)
    elif (prompt := request.get("prompt")) is not None:
        yield prompt if isinstance(prompt, str) else _plain(prompt)


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _hash(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
