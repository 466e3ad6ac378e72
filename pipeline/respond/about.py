"""What answers say of the model that gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class About:
    """model: its id. digest: of the job or the service; it makes the ids of calls. fingerprint: OpenAI's
    system_fingerprint. kernels: the id of those that compute the answers; "" where there are none to tell
    apart. facts: of the model, by llama-server's names."""

    model: str = ""
    digest: str = ""
    fingerprint: str = ""
    kernels: str = ""
    facts: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """By which requests may call the model."""
        return frozenset(filter(None, ("local", self.model)))
