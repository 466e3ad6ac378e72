"""What a client asks of a new batch, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.config import Endpoint
from pipeline.errors import RowError
from pipeline.request.json_values import plain, short
from pipeline.request.schema import REQUESTS
from pipeline.serve.batches.batch import BatchRequest
from pipeline.serve.batches.expiry import kept_seconds
from pipeline.serve.batches.ids import BATCH, new_id

FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_LONGEST = 30 * 24 * 3600
_PAIRS, _KEY, _VALUE = 16, 64, 512


def read_new_batch(fields: Mapping[str, Any], owner: str, now: float) -> BatchRequest:
    """fields: of the JSON body. Raises RowError, with the field at fault."""
    fields = plain(dict(fields))
    if unknown := next((name for name in fields if name not in FIELDS), None):
        reason = f"{unknown} is not supported; supported: {', '.join(FIELDS)}"
        raise RowError("unsupported_parameter", reason, unknown)
    file, window = fields.get("input_file_id"), fields.get("completion_window")
    if not isinstance(file, str):
        raise _invalid("input_file_id", f"must be the id of a file, not {short(file)}")
    return BatchRequest(
        id=new_id(BATCH, now),
        owner=owner,
        endpoint=_endpoint(fields.get("endpoint")),
        input_file_id=file,
        completion_window=str(window),
        created_at=int(now),
        expires_at=int(now) + _seconds(window),
        metadata=_metadata(fields.get("metadata")),
        keep=kept_seconds(fields.get("output_expires_after"), "output_expires_after"),
    )


def _endpoint(value: Any) -> Endpoint:
    found: Endpoint | None = next((endpoint for endpoint in REQUESTS if endpoint == value), None)
    if found is None:
        raise _invalid("endpoint", f"must be one of {', '.join(REQUESTS)}, not {short(value)}")
    return found


def _seconds(window: Any) -> int:
    found = _WINDOW.fullmatch(window) if isinstance(window, str) else None
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        reason = f'must be "24h", or another time such as "30m" or "7d", up to 30 days, not {short(window)}'
        raise _invalid("completion_window", reason)
    return seconds


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > _PAIRS:
        raise _invalid("metadata", f"must be a mapping of at most {_PAIRS} pairs, not {short(value)}")
    for key, text in value.items():
        if len(key) > _KEY:
            raise _invalid("metadata", f"has the key {short(key)}, which is longer than {_KEY} characters")
        if not isinstance(text, str) or len(text) > _VALUE:
            reason = f"must be a string of at most {_VALUE} characters, not {short(text)}"
            raise _invalid(f"metadata.{key}", reason)
    return value


def _invalid(param: str, reason: str) -> RowError:
    return RowError("invalid_request", f"{param} {reason}", param)
