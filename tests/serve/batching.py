"""The app with files and batches, on the fake model, over a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from pipeline.config import make_job
from pipeline.serve.batches.batch_job import Engine
from pipeline.serve.batches.office import Office
from pipeline.serve.door import Door
from pipeline.serve.routes.batches import office_routers
from tests.serve.live import Live, live, until

JOB = make_job({name: {"path": "unused"} for name in ("model", "input", "output")}, (), "test")
CHATS = "/v1/chat/completions"
FINAL = ("completed", "failed", "expired", "cancelled")


class Clock:
    """It goes by itself, and can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@contextmanager
def batching(
    data: Path | str,
    door: Door | None = None,
    clock: Callable[[], float] = time.time,
    service: Any = live,
) -> Iterator[Live]:
    """service: `live` or `live_embeddings`."""
    office = Office(str(data), clock=clock)
    with service(door, routers=office_routers(office)) as made:
        office.open(Engine(made.service, JOB, lambda: "0" * 64), made.door.metrics.computed)
        try:
            yield made
        finally:
            office.close()


def client(made: Live, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{made.url}/v1", api_key=key, max_retries=0)


def line(name: str, *, url: str = CHATS, **body: Any) -> dict[str, Any]:
    asked = {"model": "local", "messages": [{"role": "user", "content": f"hello {name}"}], "max_tokens": 5}
    return {"custom_id": name, "method": "POST", "url": url, "body": asked | body}


def chats(rows: int) -> list[dict[str, Any]]:
    return [line(f"row-{number}") for number in range(rows)]


def jsonl(lines: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def submitted(
    ai: openai.OpenAI, content: bytes, window: Any = "24h", endpoint: Any = CHATS, **options: Any
) -> Any:
    file = ai.files.create(file=("in.jsonl", content), purpose="batch")
    return ai.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window=window, **options)


def ended(ai: openai.OpenAI, id: str, seconds: float = 30) -> Any:
    until(lambda: ai.batches.retrieve(id).status in FINAL, seconds)
    return ai.batches.retrieve(id)


def results(ai: openai.OpenAI, file: str | None) -> dict[str, Any]:
    """The lines of a result file, by custom_id."""
    assert file is not None
    lines = [json.loads(text) for text in ai.files.content(file).text.splitlines()]
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines), "a request has two lines"
    return found
