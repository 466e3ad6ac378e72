"""An answer while it is generated: what each step adds to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from pipeline.answer.answer import Choice
from pipeline.answer.answer_reader import AnswerReader, Asked
from pipeline.answer.delta import CallDelta, Delta
from pipeline.engine.sampling.logprobs import TokenLogprob
from pipeline.engine.sequence import Generation, Outcome
from pipeline.engine.sequence import Sequence as Row

Found = Sequence[tuple[Row, Outcome | None]]
"""The rows of a request, and what became of those that have left."""


class AnswerStream:
    """Tells the deltas of one answer: those of a choice add up to the choice and its log-probabilities."""

    def __init__(
        self,
        reader: AnswerReader,
        request: Asked,
        name: str,
        listen: Callable[[Sequence[Delta]], None],
        *,
        at_once: bool,
    ) -> None:
        """name: as in `AnswerReader.read`. at_once: each choice is told when it is whole; rows with
        log-probabilities of their prompts may start again with other ones."""
        self._listen = listen
        self._choices = [_ChoiceStream(reader, request, name, index, at_once) for index in range(request.n)]

    def watch(self, found: Found) -> None:
        """After a step: tells what it has added, if anything. Where nothing is drawn, all choices are those
        of one row."""
        deltas = [choice.news(*found[at % len(found)]) for at, choice in enumerate(self._choices)]
        told = [delta for delta in deltas if delta]
        if told:
            self._listen(told)


class _ChoiceStream:
    """What was told of a choice: characters of its content and its reasoning, and calls."""

    def __init__(self, reader: AnswerReader, request: Asked, name: str, index: int, at_once: bool) -> None:
        self._read = partial(reader.choice, request, name=name, index=index)
        self._growing = reader.growing(request, name, index)
        self._logprobs = None if at_once else reader.logprob_stream(request)
        self._echo = reader.echo(request)
        self._index = index
        self._at_once = at_once
        self._content = self._reasoning = self._calls = self._tokens = 0
        self._is_over = False

    def news(self, row: Row, outcome: Outcome | None) -> Delta | None:
        """What the row has gained; None where nothing can be told yet."""
        if isinstance(outcome, Generation) and not self._is_over:
            return self._last(outcome)
        if outcome or self._at_once or row.started is None or len(row.tokens) <= self._tokens:
            return None
        self._tokens = len(row.tokens)
        text = row.so_far()
        delta = self._delta(self._growing(text))
        if not (delta.text or delta.reasoning or delta.calls):
            return None
        return self._with_logprobs(delta, row.found_logprobs, _covered(text, delta))

    def _last(self, generation: Generation) -> Delta:
        self._is_over = True
        choice = self._read(generation)
        delta = replace(self._delta(choice), finish_reason=choice.finish_reason)
        if self._logprobs is None:
            return replace(delta, logprobs=choice.logprobs)
        return self._with_logprobs(delta, generation.logprobs, len(generation.text))

    def _delta(self, choice: Choice) -> Delta:
        content, reasoning = self._echo + (choice.content or ""), choice.reasoning or ""
        new = content[self._content :], reasoning[self._reasoning :], choice.calls[self._calls :]
        calls = tuple(
            CallDelta(at, call.id, call.name, call.arguments) for at, call in enumerate(new[2], self._calls)
        )
        self._content = max(self._content, len(content))
        self._reasoning = max(self._reasoning, len(reasoning))
        self._calls = max(self._calls, len(choice.calls))
        return Delta(self._index, new[0], new[1], calls)

    def _with_logprobs(self, delta: Delta, entries: Sequence[TokenLogprob], stop: int) -> Delta:
        return replace(delta, logprobs=self._logprobs.take(entries, stop)) if self._logprobs else delta


def _covered(text: str, delta: Delta) -> int:
    """Up to where the text is told: what follows may be a mark."""
    new = delta.text or delta.reasoning
    at = text.rfind(new) if new else -1
    return len(text) if at < 0 else at + len(new)
