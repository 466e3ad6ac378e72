"""What an engine has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What the engine has done so far. Seconds: in the model, and in all steps.

    held_cells: the share of the cells that running rows hold or will come to need, now.
    full_seconds, full_tokens: of steps that only generated while rows waited for a slot.
    last_seconds, last_tokens: of steps in which no row waited any more, tokens that were generated.
    """

    steps: int = 0
    held_cells: float = 0.0
    decode_seconds: float = 0.0
    busy_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rows: int = 0
    preemptions: int = 0
    full_seconds: float = 0.0
    full_tokens: int = 0
    last_seconds: float = 0.0
    last_tokens: int = 0

    def note_pace(self, seconds: float, prompt: int, completion: int, *, waiting: bool) -> None:
        """What a step took, and its tokens of prompts and answers. waiting: whether rows wait for a slot."""
        if not waiting:
            self.last_seconds += seconds
            self.last_tokens += completion
        elif not prompt:
            self.full_seconds += seconds
            self.full_tokens += completion
