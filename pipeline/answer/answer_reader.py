"""From what the engine generated to the answer that it is."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from pipeline.answer.answer import Choice, Generated, ToolCall, Usage
from pipeline.answer.logprobs import LogprobWriter, prompt_text
from pipeline.constraint.constraints import constraint_of
from pipeline.engine.model import Vocabulary
from pipeline.engine.sequence import Generation
from pipeline.request.schema import ChatRequest, CompletionRequest, GenerationFields
from pipeline.text.call_ids import nine_letters
from pipeline.text.chat_format import ChatFormats
from pipeline.text.pieces import Pieces
from pipeline.text.reply import Reply
from pipeline.text.template_nature import CallIds


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
        self._logprobs = LogprobWriter(vocabulary) if vocabulary else None
        self._pieces = Pieces(vocabulary) if vocabulary else None
        self._formats = formats or ChatFormats(None)

    def read(
        self, request: GenerationFields, generations: Sequence[Generation], name: str, *, reused: bool = False
    ) -> Generated:
        """generations: one for each of the `n` choices. name: the request's, which makes the ids of calls.
        reused: they were computed for an earlier, equal request."""
        echo = ""
        if isinstance(request, ChatRequest):
            choices = self._chat(request, generations, name)
        else:
            assert isinstance(request, CompletionRequest)
            echo = prompt_text(request.prompt, self._vocabulary) if request.echo else ""
            choices = self._completion(request, generations, echo)
        first = generations[0]
        return Generated(
            choices=tuple(choices),
            usage=Usage(
                first.prompt_tokens,
                sum(generation.completion_tokens for generation in generations),
                first.prompt_tokens if reused else first.cached_tokens,
            ),
            echo=echo,
            complete=None if constraint_of(request) is None else all(g.complete for g in generations),
            decisions=first.decisions,
            seconds=None if reused else max(generation.seconds for generation in generations),
            reused=reused,
        )

    def _chat(self, request: ChatRequest, generations: Sequence[Generation], name: str) -> list[Choice]:
        chat = self._formats.of(request)
        guided = constraint_of(request) is not None
        marks = chat.marks(tools=bool(request.offered))
        piece = self._pieces.showing(marks) if self._pieces else None
        choices = []
        for index, generation in enumerate(generations):
            reply = chat.reply(request, generation.text, guided=guided)
            calls = self._calls(reply, chat.call_ids, name, index)
            logprobs = self._logprobs.chat(generation, piece) if self._logprobs else None
            reason = finish_reason(generation, bool(calls))
            choices.append(Choice(reply.content, reason, reply.reasoning, calls, logprobs))
        return choices

    def _completion(
        self, request: CompletionRequest, generations: Sequence[Generation], echo: str
    ) -> list[Choice]:
        echoed = echo if request.echo else None
        return [
            Choice(
                generation.text,
                finish_reason(generation),
                logprobs=self._logprobs.completion(generation, echoed) if self._logprobs else None,
            )
            for generation in generations
        ]

    def _calls(self, reply: Reply, ids: CallIds, name: str, index: int) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(self.call_id(ids, call.name, name, index, place), call.name, call.arguments)
            for place, call in enumerate(reply.calls)
        )

    def call_id(self, form: CallIds, function: str, *place: object) -> str:
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


def finish_reason(generation: Generation, calls: bool = False) -> str:
    """What was cut off never passes for whole, whatever could be read of it."""
    if not generation.complete or generation.finish_reason == "length":
        return "length"
    return "tool_calls" if calls else generation.finish_reason
