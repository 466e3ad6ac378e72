"""Several requests that are answered as one: what becomes of the others when one fails or nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from pipeline.answer.answer import Answer, Choice, Generated, Usage
from pipeline.answer.delta import Delta
from pipeline.errors import RowError
from pipeline.request.schema import CompletionRequest, parse_request
from pipeline.respond.handle import Handle
from pipeline.respond.together import ask_together


class Asked:
    """A service whose answers come when the test says so. refuses: the prompt that it doesn't take."""

    def __init__(self, refuses: str = "") -> None:
        self.parts: list[Future[Answer]] = []
        self.listens: list[Callable[[Any], None]] = []
        self._refuses = refuses

    def ask(self, request: CompletionRequest, name: str, *, listen: Any = None) -> Handle[Answer]:
        if request.prompt == self._refuses:
            raise RowError("context_length_exceeded", "prompt: 9 tokens", "prompt")
        self.parts.append(Future())
        self.listens.append(listen)
        return Handle(self.parts[-1])


def requests(*prompts: str, n: int = 1) -> list[Any]:
    return [parse_request("/v1/completions", {"prompt": prompt, "n": n}) for prompt in prompts]


def answer(text: str, tokens: int, echo: str = "") -> Generated:
    return Generated(
        (Choice(text, "stop"), Choice(text, "length")), Usage(tokens, 2, 1), echo=echo, seconds=tokens
    )


def test_choices_come_in_the_order_of_the_prompts_whoever_is_first():
    service, heard = Asked(), []
    handle = ask_together(service, requests("a", "b", n=2), "name", listen=heard.extend)  # type: ignore[arg-type]
    service.listens[1]([Delta(0, "x"), Delta(1, "y")])
    service.listens[0]([Delta(1, "z")])
    service.parts[1].set_result(answer("B", 5, "b"))
    assert not handle.result.done()
    service.parts[0].set_result(answer("A", 3, "a"))
    whole = handle.result.result(0)
    assert isinstance(whole, Generated)
    assert [(choice.content, choice.finish_reason) for choice in whole.choices] == [
        ("aA", "stop"),
        ("aA", "length"),
        ("bB", "stop"),
        ("bB", "length"),
    ]
    assert whole.usage == Usage(8, 4, 2) and whole.seconds == 5
    assert [(delta.choice, delta.text) for delta in heard] == [(2, "x"), (3, "y"), (1, "z")]


def test_where_one_fails_the_others_are_cancelled():
    service = Asked()
    handle = ask_together(service, requests("a", "b", "c"), "name")  # type: ignore[arg-type]
    service.parts[0].set_result(answer("A", 3))
    service.parts[1].set_exception(RowError("deadline_exceeded", "late"))
    with pytest.raises(RowError, match="late"):
        handle.result.result(0)
    assert service.parts[2].cancelled()


def test_where_nobody_waits_all_are_cancelled():
    service = Asked()
    handle = ask_together(service, requests("a", "b"), "name")  # type: ignore[arg-type]
    handle.cancel()
    handle.cancel()
    assert all(part.cancelled() for part in service.parts)
    with pytest.raises(CancelledError):
        handle.result.result(0)


def test_where_one_is_refused_nothing_is_begun():
    service = Asked(refuses="b")
    with pytest.raises(RowError) as refused:
        ask_together(service, requests("a", "b", "c"), "name")  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.message) == ("prompt[1]", "prompt[1]: 9 tokens")
    assert [part.cancelled() for part in service.parts] == [True]
