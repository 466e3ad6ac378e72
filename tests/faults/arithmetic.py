"""Rows whose right answers anybody can compute, so that a wrong, doubled or misplaced one shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sum:
    """A row's prompt: "17", or with something to do before it is answered: "17 ONCE KILL"."""

    number: int
    order: str = ""
    once: bool = False

    @classmethod
    def of(cls, prompt: str) -> Sum:
        number, *order = prompt.split()
        once = order[:1] == ["ONCE"]
        return cls(int(number), " ".join(order[once:]), once)

    @property
    def text(self) -> str:
        return f"{self.number} squared is {self.number**2}"

    @property
    def prompt_tokens(self) -> int:
        return self.number % 7 + 1

    @property
    def completion_tokens(self) -> int:
        return self.number % 5 + 1

    @property
    def cached_tokens(self) -> int:
        return self.number % self.prompt_tokens
