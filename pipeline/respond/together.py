"""Several requests that are answered as one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace

from pipeline.answer.answer import Answer, Choice, Generated, Usage
from pipeline.answer.delta import Delta
from pipeline.errors import RowError
from pipeline.request.schema import CompletionRequest
from pipeline.respond.handle import Handle, then
from pipeline.respond.service import Listen, Service


def ask_together(
    service: Service, requests: Sequence[CompletionRequest], name: str, *, listen: Listen | None = None
) -> Handle[Answer]:
    """Begins to answer completions, one for each of a list of prompts. As `Service.ask`, whose answer has the
    choices of the first request, then those of the second, and so on. param of a RowError: "prompt[1]".
    """
    handles: list[Handle[Answer]] = []
    first = 0
    try:
        for at, request in enumerate(requests):
            with at_prompt(at):
                heard = listen and _shifted(listen, first)
                handles.append(service.ask(request, f"{name}-{at}", listen=heard))
            first += request.n
    except BaseException:
        for handle in handles:
            handle.cancel()
        raise
    return Handle(then(_all([handle.result for handle in handles]), _joined))


@contextmanager
def at_prompt(at: int) -> Iterator[None]:
    """A RowError that is about the prompt says which of several it is."""
    try:
        yield
    except RowError as error:
        if error.param is None or not error.param.startswith("prompt"):
            raise
        place = f"prompt[{at}]"
        message = error.message.replace("prompt", place, 1)
        raise RowError(error.code, message, error.param.replace("prompt", place, 1)) from None


def _shifted(listen: Listen, first: int) -> Listen:
    def shifted(deltas: Sequence[Delta]) -> None:
        listen([replace(delta, choice=delta.choice + first) for delta in deltas])

    return shifted


def _all(parts: Sequence[Future[Answer]]) -> Future[list[Answer]]:
    """The results of all, or what the first that fails raises. Then the others are cancelled, as they are
    with it."""
    whole: Future[list[Answer]] = Future()
    lock, left = threading.Lock(), [len(parts)]

    def settle(part: Future[Answer]) -> None:
        with lock:
            left[0] -= 1
            failed = part.cancelled() or part.exception() is not None
            if whole.done() or (left[0] and not failed) or not whole.set_running_or_notify_cancel():
                return
            if not failed:
                whole.set_result([one.result() for one in parts])
                return
            whole.set_exception(CancelledError() if part.cancelled() else part.exception())
        for one in parts:
            one.cancel()

    whole.add_done_callback(lambda whole: whole.cancelled() and [one.cancel() for one in parts])
    for part in parts:
        part.add_done_callback(settle)
    return whole


def _joined(answers: Sequence[Answer]) -> Answer:
    whole = [answer for answer in answers if isinstance(answer, Generated)]
    usages = [answer.usage for answer in whole]
    return Generated(
        choices=tuple(_with_echo(answer.echo, choice) for answer in whole for choice in answer.choices),
        usage=Usage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
        ),
        complete=None if whole[0].complete is None else all(answer.complete for answer in whole),
        seconds=max(answer.seconds or 0.0 for answer in whole),
        prompt_seconds=max(answer.prompt_seconds for answer in whole),
    )


def _with_echo(echo: str, choice: Choice) -> Choice:
    return replace(choice, content=echo + (choice.content or ""))
