"""Answers that the actors of a job share, so that equal rows are computed by one of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from pipeline.respond.ask import Generations

_ROOM = 5_000_000
_SECONDS = 2.0
_SILENCES = 5
"""Time-outs in a row after which the board costs more than it can save."""


class AnswerBoard:
    """Answers by key while there is room; the oldest go first. It runs in a process of its own."""

    def __init__(self, room: int = _ROOM) -> None:
        """room: what the sizes of all answers may add up to."""
        self._room = room
        self._answers: OrderedDict[bytes, Generations] = OrderedDict()
        self._held = 0

    def look(self, keys: Sequence[bytes]) -> dict[bytes, Generations]:
        """The answers to those of `keys` that are known."""
        return {key: self._answers[key] for key in keys if key in self._answers}

    def note(self, answers: Mapping[bytes, Generations]) -> None:
        for key, answer in answers.items():
            if key not in self._answers:
                self._answers[key] = answer
                self._held += answer.size
        while self._held > self._room:
            self._held -= self._answers.popitem(last=False)[1].size


class SharedAnswers:
    """The job's board as one actor sees it: whatever becomes of it, rows are answered without it.

    The first actor that asks starts it; when that one dies, the board goes with it, and another is started.
    """

    def __init__(self, job: str) -> None:
        """job: tells the boards of nightherd jobs within one Ray job apart."""
        self._name = f"answers of {job}"
        # Who started a board has to hold on to it, or Ray ends it.
        self._board: Any = None
        self._silences = 0

    def look(self, keys: Sequence[bytes]) -> Mapping[bytes, Generations]:
        """The answers to those of `keys` that are known."""
        if not keys or self._silences >= _SILENCES:
            return {}
        try:
            found: Mapping[bytes, Generations] = ray.get(self._held().look.remote(keys), timeout=_SECONDS)
            self._silences = 0
            return found
        except GetTimeoutError:
            self._silences += 1
        except (RayError, ValueError):
            self._board = None
        return {}

    def note(self, answers: Mapping[bytes, Generations]) -> None:
        """Tells the others; nobody waits for it."""
        if not answers or self._silences >= _SILENCES:
            return
        try:
            self._held().note.remote(answers)
        except (RayError, ValueError):
            self._board = None

    def _held(self) -> Any:
        if self._board is None:
            board = ray.remote(AnswerBoard).options(name=self._name, get_if_exists=True, num_cpus=0)
            self._board = board.remote()
        return self._board
