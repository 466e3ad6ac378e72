"""A file that a client has sent, or that a batch has left."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Purpose = Literal["batch", "batch_output"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """bytes: its size. created_at, expires_at: seconds since 1970."""

    id: str
    filename: str
    purpose: Purpose
    bytes: int
    created_at: int
    expires_at: int | None = None

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's API has it."""
        return {"object": "file"} | self.record | {"status": "processed", "status_details": None}
