"""What one step of the engine added to an answer."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.answer.answer import Generated, Logprobs


@dataclass(frozen=True, slots=True)
class CallDelta:
    """index: of the call in its choice. id, name: in the call's first delta alone."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """What was added to the choice of index `choice`.

    text: of a completion, or a chat's content. logprobs: of the tokens that the delta covers, in the shape
    of `Choice.logprobs`. finish_reason: in the choice's last delta.
    """

    choice: int
    text: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


def whole_deltas(answer: Generated) -> list[Delta]:
    """The answer at once: one delta for each choice."""
    return [
        Delta(
            index,
            answer.echo + (choice.content or ""),
            choice.reasoning or "",
            tuple(CallDelta(at, call.id, call.name, call.arguments) for at, call in enumerate(choice.calls)),
            choice.logprobs,
            choice.finish_reason,
        )
        for index, choice in enumerate(answer.choices)
    ]
