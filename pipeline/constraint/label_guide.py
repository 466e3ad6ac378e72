"""A guide that knows where the text goes on with one of a few labels, and how the model spells each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.constraint.answer_text import Ahead, AnswerText
from pipeline.constraint.labels import SpelledLabels
from pipeline.constraint.matcher_guide import MatcherGuide
from pipeline.engine.sampling.labels import Element, Labels

Spell = Callable[[bytes, Ahead, Sequence[int], MatcherGuide], SpelledLabels | None]
"""Spells what comes next, from what was said, the labels, the tokens before, and the guide there."""
Bytes = Callable[[int], bytes]
IsOwn = Callable[[Sequence[int], int, bytes], bool]
"""Whether the tokenizer would write a token behind others, where these bytes follow."""


class LabelGuide:
    """A `Guide`. Where nobody chooses among its labels, a text may be followed token by token as well."""

    def __init__(
        self,
        matcher: MatcherGuide,
        text: AnswerText | Ahead | None,
        before: Sequence[int],
        spell: Spell,
        piece: Bytes,
        is_own: IsOwn,
    ) -> None:
        """text: the answer's bytes; or the labels of which one is the whole answer; or None where no labels
        can be found. before: the prompt's last tokens. piece: the bytes of a token, a control token's too."""
        self._matcher = matcher
        self._text = text
        self._before = list(before)
        self._spell, self._piece, self._is_own = spell, piece, is_own
        self._said = 0
        # Whether what was said last was forced.
        self._was_forced = False
        self._looked = False
        # What comes next for sure, then the labels that are left of those that come then.
        self._due: tuple[int, ...] = ()
        self._spelled: SpelledLabels | None = None
        self._live: tuple[int, ...] = ()
        self._at = 0
        self._is_chosen = False
        # Bytes of the next tokens that belong to the prompt.
        self._skip = 0
        # Of the prompt: tokens that the answer's first token takes back; bytes of the answer's tokens.
        self.healed, self.skipped = 0, 0

    def copy(self) -> LabelGuide:
        text = self._text.copy() if isinstance(self._text, AnswerText) else self._text
        copy = LabelGuide(self._matcher.copy(), text, self._before, self._spell, self._piece, self._is_own)
        for name in (
            "_said",
            "_was_forced",
            "_looked",
            "_due",
            "_spelled",
            "_live",
            "_at",
            "_is_chosen",
            "_skip",
            "healed",
            "skipped",
        ):
            setattr(copy, name, getattr(self, name))
        return copy

    def mask(self, logits: NDArray[np.float32]) -> None:
        self.look()
        allowed = self._allowed()
        if allowed is None:
            self._matcher.mask(logits)
            return
        kept = logits[allowed].copy()
        logits[:] = -np.inf
        logits[allowed] = kept

    def spells(self, token: int) -> bool:
        self.look()
        if self._due or self._spelled or not isinstance(self._text, AnswerText):
            return True
        piece = self._piece(token)
        return not piece or self._is_own(self._before, token, self._text.after(piece))

    def accept(self, token: int) -> None:
        self.look()
        piece = self._piece(token)
        own = piece[self._skip :]
        if self._skip:
            self._skip = max(0, self._skip - len(piece))
            self._matcher.accept_text(own)
        else:
            self._matcher.accept(token)
        if isinstance(self._text, AnswerText):
            self._text.feed(own)
        self._said += 1
        self._before.append(token)
        self._follow(token)

    def forced(self) -> list[int]:
        self.look()
        if self._due:
            return list(self._due)
        found = self._rest() if self._spelled else self._matcher.forced()
        self._was_forced = bool(found)
        return found

    def labels(self) -> Labels | None:
        self.look()
        is_open = not self._due and self._at == 0 and not self._is_chosen
        return self._spelled.labels if self._spelled and is_open else None

    def choose(self, label: int) -> None:
        self._live, self._is_chosen = (label,), True
        if self._element(label) is None:
            self._spelled, self._looked = None, False

    @property
    def done(self) -> bool:
        if self._due:
            return False
        if self._spelled and len(self._live) == 1 and not self._rest():
            return self._spelled.whole
        return not self._spelled and self._matcher.done

    @property
    def complete(self) -> bool:
        return not self._due and self._matcher.complete

    def look(self) -> None:
        """Finds the labels ahead, once at each place."""
        if self._looked:
            return
        self._looked = True
        if isinstance(self._text, AnswerText):
            said, ahead = self._text.said, self._text.ahead(after_forced=self._was_forced)
        else:
            said, ahead = b"", None if self._said else self._text
        spelled = self._spell(said, ahead, self._before, self._matcher) if ahead else None
        if not spelled:
            return
        self._due = spelled.due
        if spelled.back or spelled.extra:
            self.healed, self.skipped = spelled.back, spelled.extra
            del self._before[len(self._before) - spelled.back :]
            self._skip = spelled.extra
        self._spelled, self._at, self._is_chosen = spelled, 0, False
        self._live = tuple(range(len(spelled.labels.names)))

    def _follow(self, token: int) -> None:
        if self._due:
            is_due = self._due[0] == token
            self._due = self._due[1:] if is_due else ()
            self._spelled = self._spelled if is_due else None
            self._was_forced = True
        elif self._spelled:
            self._live = tuple(label for label in self._live if self._element(label) == token)
            self._at += 1
            if not any(self._element(label) is not None for label in self._live):
                self._spelled, self._was_forced = None, False
        self._looked = bool(self._due or self._spelled)

    def _element(self, label: int) -> Element | None:
        assert self._spelled
        elements = self._spelled.labels.elements[label]
        return elements[self._at] if self._at < len(elements) else None

    def _rest(self) -> list[int]:
        """The tokens that are left of the one label that is left, and the one that closes it."""
        if not self._spelled or len(self._live) != 1:
            return []
        label = self._live[0]
        rest = list(self._spelled.labels.tokens[label][self._at :])
        return rest + list(self._spelled.closings[label] if self._spelled.labels.ends[label] else ())

    def _allowed(self) -> list[int] | None:
        """The tokens that may come next; None where the matcher tells."""
        if self._due:
            return [self._due[0]]
        if not self._spelled:
            forced = self._matcher.forced()
            self._was_forced = bool(forced)
            return forced[:1] or None
        if rest := self._rest():
            return rest[:1]
        allowed: dict[int, None] = {}
        for label in self._live:
            element = self._element(label)
            allowed |= dict.fromkeys(
                element if isinstance(element, tuple) else () if element is None else (element,)
            )
        return list(allowed) or None
