"""What one step of the engine added to an answer."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.answer.answer import Logprobs


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
