"""A broken engine: who asks is told, and the process ends so that it can be started again."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest

from pipeline.config import make_job
from pipeline.engine.embedder import Embedder
from pipeline.engine.engine import Engine
from pipeline.engine.fakes.embedding import FakeEmbeddingModel
from pipeline.engine.fakes.fake import FakeModel
from pipeline.errors import JobError
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.serve import serving
from tests.serve.live import ABOUT, generative

JOB = make_job({name: {"path": "unused"} for name in ("model", "input", "output")}, (), "test")
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


def chats():
    model = FakeModel(fails=lambda batch: 1 / 0)
    return generative(model, Engine(model, slots=2)), "/chat/completions", CHAT


def vectors():
    model = FakeEmbeddingModel()
    model.embed = lambda inputs: 1 / 0
    return EmbeddingService(Embedder(model), ABOUT, truncate=False), "/embeddings", {"input": "hello"}


@pytest.mark.parametrize("kind", [chats, vectors])
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_engine_is_told_and_ends_the_process(kind, stream, monkeypatch):
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(serving, "LAST_SECONDS", 0.2)
    asked = threading.Event()
    stop_broken = serving._Server.stop_broken

    def stop_when_asked(server: serving._Server) -> None:
        waiting = asyncio.get_running_loop().run_in_executor(None, asked.wait, 20)
        waiting.add_done_callback(lambda _: stop_broken(server))

    monkeypatch.setattr(serving._Server, "stop_broken", stop_when_asked)
    service, path, body = kind()
    body |= {"stream": True} if stream and kind is chats else {}
    found: list[httpx.Response] = []

    def ask(url: str) -> None:
        health = url.removesuffix("/v1") + "/health"
        found.append(httpx.get(health))
        found.extend(httpx.post(url + path, json=body) for _ in range(2))
        found.append(httpx.get(health))
        asked.set()

    asking: list[threading.Thread] = []

    def tell(line: str) -> None:
        asking.append(threading.Thread(target=ask, args=(line.split()[-1],)))
        asking[0].start()

    with pytest.raises(JobError, match=r"the engine stopped: division by zero; start the service again"):
        serving.serve(JOB, serving.Address(port=0), None, tell, lambda job: service)
    asking[0].join()
    before, first, second, after = found
    assert before.status_code == 200
    for answer in (first, second):
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "service_unavailable"
        assert int(answer.headers["retry-after"]) > 0
    assert after.status_code == 503
    told = after.json()
    assert (told["status"], told["reason"]) == ("broken", "the engine stopped: division by zero")
