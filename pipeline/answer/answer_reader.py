"""From what the engine generated to the answer that it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b

from pipeline.answer.answer import Choice, Generated, ToolCall, Usage
from pipeline.answer.logprob_stream import LogprobStream
from pipeline.answer.logprobs import LogprobWriter, prompt_text
from pipeline.chat.call_ids import nine_letters
from pipeline.chat.chat_format import ChatFormats
from pipeline.chat.pieces import Piece, Pieces
from pipeline.chat.reply import Reply
from pipeline.chat.template_nature import CallIds
from pipeline.constraint.constraints import constraint_of
from pipeline.engine.model import Vocabulary
from pipeline.engine.sequence import Generation
from pipeline.request.schema import ChatRequest, CompletionRequest

Asked = ChatRequest | CompletionRequest


class AnswerReader:
    """Reads what one model generates."""

    def __init__(
        self, fingerprint: str, *, vocabulary: Vocabulary | None = None, formats: ChatFormats | None = None
    ) -> None:
        """fingerprint: of the job or the service; it makes the ids of calls. vocabulary: for requests that
        ask for log-probabilities. formats: the chat templates, which tell how the model writes reasoning
        and calls."""
        self._fingerprint = fingerprint
        self._vocabulary = vocabulary
        self._writer = LogprobWriter(vocabulary) if vocabulary else None
        self._pieces = Pieces(vocabulary) if vocabulary else None
        self._formats = formats or ChatFormats(None)

    def read(
        self, request: Asked, generations: Sequence[Generation], name: str, *, reused: bool = False
    ) -> Generated:
        """generations: one for each of the `n` choices. name: the request's, which makes the ids of calls.
        reused: they were computed for an earlier, equal request."""
        first = generations[0]
        return Generated(
            choices=tuple(
                self.choice(request, generation, name, index) for index, generation in enumerate(generations)
            ),
            usage=Usage(
                first.prompt_tokens,
                sum(generation.completion_tokens for generation in generations),
                first.prompt_tokens if reused else first.cached_tokens,
            ),
            echo=self.echo(request),
            complete=None if not _is_guided(request) else all(g.complete for g in generations),
            decisions=first.decisions,
            seconds=None if reused else max(generation.seconds for generation in generations),
            prompt_seconds=first.prompt_seconds,
            reused=reused,
        )

    def choice(self, request: Asked, generation: Generation, name: str, index: int) -> Choice:
        """The choice of this index."""
        if not isinstance(request, ChatRequest):
            echo = self.echo(request) if request.echo else None
            logprobs = self._writer.completion(generation, echo) if self._writer else None
            reason = finish_reason(generation)
            return Choice(generation.text, reason, logprobs=logprobs, stop=generation.stop)
        reply = self._formats.of(request).reply(request, generation.text, guided=_is_guided(request))
        choice = self._of_chat(request, reply, name, index)
        return replace(
            choice,
            finish_reason=finish_reason(generation, bool(reply.calls)),
            stop=generation.stop,
            logprobs=self._writer.chat(generation, self._piece(request)) if self._writer else None,
        )

    def growing(self, request: Asked, name: str, index: int) -> Callable[[str], Choice]:
        """Reads what is certain of a choice from its text so far; it has no finish_reason yet."""
        if not isinstance(request, ChatRequest):
            return lambda text: Choice(text, "")
        growing = self._formats.of(request).growing(request, guided=_is_guided(request))
        return lambda text: self._of_chat(request, growing.certain(text), name, index)

    def logprob_stream(self, request: Asked) -> LogprobStream | None:
        """None where the request asks for no log-probabilities."""
        if self._writer is None or request.top is None:
            return None
        before = None if isinstance(request, ChatRequest) else len(self.echo(request))
        return LogprobStream(self._writer, self._piece(request) or self._writer.vocabulary.piece, before)

    def echo(self, request: Asked) -> str:
        """The prompt's text, where it stands before the answer."""
        if not isinstance(request, CompletionRequest) or not request.echo:
            return ""
        return prompt_text(request.prompt, self._vocabulary)

    def _of_chat(self, request: ChatRequest, reply: Reply, name: str, index: int) -> Choice:
        ids = self._formats.of(request).call_ids
        calls = tuple(
            ToolCall(self._call_id(ids, call.name, name, index, place), call.name, call.arguments)
            for place, call in enumerate(reply.calls)
        )
        return Choice(reply.content, "", reply.reasoning, calls)

    def _piece(self, request: Asked) -> Piece | None:
        """The bytes of an answer's tokens, where some of them are control tokens."""
        if self._pieces is None or not isinstance(request, ChatRequest):
            return None
        return self._pieces.showing(self._formats.of(request).marks(tools=bool(request.offered)))

    def _call_id(self, form: CallIds, function: str, *place: object) -> str:
        """In the form in which the model's template takes it back. place: the request's name, the index of
        the choice, and that of the call."""
        if form == "named":
            return f"functions.{function}:{place[-1]}"
        digest = self.digest(*place)
        return nine_letters(digest) if form == "nine" else f"call_{digest}"

    def digest(self, *place: object) -> str:
        """The same job gives the same row the same id, however often it is tried."""
        name = "\0".join(map(str, (self._fingerprint, *place)))
        return blake2b(name.encode(), digest_size=12).hexdigest()


def _is_guided(request: Asked) -> bool:
    return constraint_of(request) is not None


def finish_reason(generation: Generation, calls: bool = False) -> str:
    """What was cut off never passes for whole, whatever could be read of it."""
    if not generation.complete or generation.finish_reason == "length":
        return "length"
    return "tool_calls" if calls else generation.finish_reason
