"""Labels as the model's tokens: what may come next in an answer, spelled in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.constraint.answer_text import Ahead
from pipeline.constraint.spelling import Speller, Spelling, Tokens
from pipeline.engine.sampling.labels import Labels

EndsAfter = Callable[[Tokens, int, bytes], Tokens]
"""The tokens that may end a label behind its own tokens. The first so many bytes of these aren't the label's.
The bytes are what is sure to follow it."""


@dataclass(frozen=True, slots=True)
class SpelledLabels:
    """due: tokens that all labels begin with. labels: what follows these.
    closings: behind each label, the token that is sure to come; () where several may.
    whole: a label ends the answer. back, extra: as of `Spelling`."""

    due: Tokens
    labels: Labels
    closings: tuple[Tokens, ...]
    whole: bool
    back: int
    extra: int


def spell_labels(
    ahead: Ahead, before: Sequence[int], speller: Speller, ends_after: EndsAfter, *, most_back: int
) -> SpelledLabels | None:
    """None where the vocabulary can't write a label. before: the tokens that the text stands behind.
    most_back: how many of them the labels may take back."""
    found = [
        speller.spell(before, (text + closer).decode(), most_back=most_back)
        for text, closer in zip(ahead.texts, ahead.closers, strict=True)
    ]
    back = max(spelling.back for spelling in found)
    spelled = [_aligned(spelling, before, back, speller) for spelling in found]
    extra = spelled[0].extra
    if any(spelling.extra != extra for spelling in spelled):
        return spell_labels(ahead, (), speller, ends_after, most_back=0) if before else None
    parts = [
        _parts(spelling, len(text), speller) for spelling, text in zip(spelled, ahead.texts, strict=True)
    ]
    if any(
        speller.text(spelling.tokens)[extra:] != text + closer
        for spelling, text, closer in zip(spelled, ahead.texts, ahead.closers, strict=True)
    ):
        return None
    ends = [
        ends_after(tokens, extra, closer) if begins and not over else ()
        for (tokens, _, over), begins, closer in zip(
            parts, _beginnings(ahead.texts), ahead.closers, strict=True
        )
    ]
    size = _shared([tokens for tokens, _, _ in parts])
    labels = Labels(
        ahead.place,
        ahead.names,
        tuple(tokens[size:] for tokens, _, _ in parts),
        tuple(ends),
    )
    closings = tuple(closing for _, closing, _ in parts)
    return SpelledLabels(parts[0][0][:size], labels, closings, ahead.whole, back, extra)


def _aligned(spelling: Spelling, before: Sequence[int], back: int, speller: Speller) -> Spelling:
    """The same tokens, from `back` tokens before on."""
    more = tuple(before[len(before) - back : len(before) - spelling.back])
    return Spelling(more + spelling.tokens, back, spelling.extra + len(speller.text(more)))


def _parts(spelling: Spelling, size: int, speller: Speller) -> tuple[Tokens, Tokens, bool]:
    """The tokens that begin within the label of `size` bytes, the one behind them, and whether the last of
    the label's goes beyond it."""
    at, count = -spelling.extra, 0
    while count < len(spelling.tokens) and at < size:
        at += len(speller.piece(spelling.tokens[count]))
        count += 1
    closing = spelling.tokens[count : count + 1] if at == size else ()
    return spelling.tokens[:count], closing, at > size


def _beginnings(texts: Sequence[bytes]) -> list[bool]:
    """Whether each text is the beginning of another one."""
    order = sorted(range(len(texts)), key=lambda at: texts[at])
    found = [False] * len(texts)
    for one, following in pairwise(order):
        found[one] = texts[following].startswith(texts[one])
    return found


def _shared(tokens: Sequence[Tokens]) -> int:
    """How many tokens all begin with."""
    first, last = min(tokens), max(tokens)
    pairs = zip(first, last, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
