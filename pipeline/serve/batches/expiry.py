"""How long a file is kept, as OpenAI's API asks for it."""

from __future__ import annotations

from typing import Any

from pipeline.errors import RowError
from pipeline.request.json_values import short

SHORTEST, LONGEST = 3600, 30 * 24 * 3600


def kept_seconds(value: Any, param: str) -> int | None:
    """value: {"anchor": "created_at", "seconds": 3600}; None keeps a file for ever. Raises RowError."""
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"anchor", "seconds"}:
        raise _invalid(param, f'must be {{"anchor": "created_at", "seconds": ...}}, not {short(value)}')
    if value["anchor"] != "created_at":
        raise _invalid(f"{param}.anchor", f"must be created_at, not {short(value['anchor'])}")
    seconds = value["seconds"]
    if isinstance(seconds, str) and seconds.isdecimal():
        seconds = int(seconds[:9])
    if type(seconds) is not int or not SHORTEST <= seconds <= LONGEST:
        reason = f"must be a whole number from {SHORTEST} to {LONGEST}, not {short(seconds)}"
        raise _invalid(f"{param}.seconds", reason)
    return seconds


def _invalid(param: str, reason: str) -> RowError:
    return RowError("invalid_request", f"{param} {reason}", param)
