"""The app on the fake model, behind a live uvicorn."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from pipeline.engine.embedder import Embedder
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.embedding import FakeEmbeddingModel
from pipeline.engine.fakes.fake import FakeModel
from pipeline.engine.runner import Runner
from pipeline.respond.about import About
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.respond.generative_service import GenerativeService
from pipeline.respond.service import Service
from pipeline.serve.app import make_app
from pipeline.serve.door import Door

ABOUT = About("org/fake", "digest", "fp_1")
TOOL_TEMPLATE = (
    "{% if tools %}{{ tools | tojson }} <tool_call>\n"
    '{"name": ..., "arguments": ...}\n</tool_call>{% endif %}'
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or () %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's."""


class Live:
    """A service that answers at `url`. gate: while it is held, the fake model computes nothing."""

    def __init__(self, door: Door, service: Service, url: str, engine: Engine | None = None) -> None:
        self.door = door
        self.service = service
        self.url = url
        self.engine = engine
        self.gate = threading.Lock()
        self.model: Any = None

    @property
    def idle(self) -> bool:
        assert self.engine is not None
        return not self.engine.running and not self.engine.waiting and not self.door.under_way


def generative(model: FakeModel, engine: Engine) -> GenerativeService:
    return GenerativeService(Runner(engine), model.vocabulary, ABOUT, context=model.context)


@contextmanager
def live(
    door: Door | None = None, *, context: int = 4096, cells: int = 16384, **options: Any
) -> Iterator[Live]:
    """A service of chats and completions."""
    model = FakeModel(max_sequences=9, context=context, cells=cells)
    model.vocabulary.tool_template = TOOL_TEMPLATE
    engine = Engine(model, slots=4)
    service = generative(model, engine)
    with served(service, engine, door, **options) as made:
        model.fails = lambda batch: (made.gate.acquire(), made.gate.release())[1]
        yield made


@contextmanager
def live_embeddings(door: Door | None = None, **options: Any) -> Iterator[Live]:
    service = EmbeddingService(Embedder(FakeEmbeddingModel()), ABOUT, truncate=False)
    with served(service, None, door, **options) as made:
        yield made


def until(holds: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.002)


@contextmanager
def served(
    service: Service, engine: Engine | None = None, door: Door | None = None, **options: Any
) -> Iterator[Live]:
    door = door or Door()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(door, **options), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        door.open(service)
        until(lambda: server.started)
        try:
            yield Live(door, service, f"http://127.0.0.1:{listening.getsockname()[1]}", engine)
        finally:
            server.should_exit = True
            thread.join()
            service.close()
