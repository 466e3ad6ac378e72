"""The schemas of the benchmark's workloads, and whether answers keep to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jsonschema import Draft202012Validator

DESKS = ["rooms", "kitchen", "transport", "money", "lost", "thanks"]


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


LABEL = _object(label={"enum": DESKS})
RECORD = _object(
    desk={"enum": DESKS},
    urgency={"enum": ["low", "normal", "high"]},
    room={"type": "integer", "minimum": 1, "maximum": 999},
    reply={"type": "boolean"},
    summary={"type": "string", "maxLength": 40},
)
# What may stand in a JSON string, up to a mark that no model writes: every row gets all its tokens.
PLAIN = r'[^"\\\x00-\x1f~]*~'
PLAIN_GRAMMAR = r'root ::= [^"\\\x00-\x1F~]* "~"'


def response_format(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI's chats take a schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def agreement(body: dict[str, Any], texts: Sequence[str]) -> float | None:
    """The share of `texts` that keep to the schema that `body` asks for; None where it asks for none."""
    if "response_format" not in body:
        return None
    validator = Draft202012Validator(body["response_format"]["json_schema"]["schema"])
    return sum(_is_valid(validator, text) for text in texts) / len(texts)


def _is_valid(validator: Draft202012Validator, text: str) -> bool:
    try:
        return bool(validator.is_valid(json.loads(text)))
    except ValueError:
        return False
