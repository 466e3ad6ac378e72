"""`nightherd serve` on Ray with the fake model, in processes of its own that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.live import until

HELLO: Any = [{"role": "user", "content": "hello"}]
START_SECONDS = 240.0


class Fleet:
    """A command that serves at `url`, up to /v1. said: its lines on stderr so far."""

    def __init__(self, process: subprocess.Popen[str], url: str, said: list[str]) -> None:
        self.process = process
        self.url = url
        self.said = said
        self._all = psutil.Process(process.pid)

    def client(self, **options: Any) -> openai.OpenAI:
        options = {"api_key": "none", "max_retries": 0, "timeout": 60.0, **options}
        return openai.OpenAI(base_url=self.url, **options)

    def pids(self, role: str) -> set[int]:
        """role: ServeReplica, ProxyActor or ServeController."""
        return {child.pid for child in self._all.children(recursive=True) if role in _title(child)}

    def kill(self, role: str) -> int:
        pid = min(self.pids(role))
        os.kill(pid, signal.SIGKILL)
        return pid

    def requests(self) -> dict[str, float]:
        """Answers to chats by replica, as /metrics tells."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        found = [family for family in text_string_to_metric_families(text) if "http_requests" in family.name]
        return {
            sample.labels["replica"]: sample.value
            for family in found
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["route"].endswith("/chat/completions")
        }

    def answers(self) -> bool:
        try:
            return self.chat().choices[0].finish_reason == "length"
        except openai.OpenAIError:
            return False

    def chat(self, **options: Any) -> Any:
        with self.client() as ai:
            asked = {"model": "local", "messages": HELLO, "max_tokens": 3, **options}
            return ai.chat.completions.create(**asked, extra_body={"ignore_eos": True})

    def wait_until_it_answers(self, seconds: float = START_SECONDS) -> None:
        until(self.answers, seconds)


class Stream:
    """A chat that is streamed in a thread. begun: once its first text is there."""

    def __init__(self, fleet: Fleet, text: str, tokens: int = 300) -> None:
        self.begun = threading.Event()
        self.text = ""
        self.reason: str | None = None
        self.error: Exception | None = None
        self._asked = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens}
        self._thread = threading.Thread(target=self._read, args=(fleet,))
        self._thread.start()

    def join(self) -> None:
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive(), "a client was left without an end"

    def _read(self, fleet: Fleet) -> None:
        try:
            with fleet.client() as ai:
                create: Any = ai.chat.completions.create
                for chunk in create(
                    model="local", stream=True, extra_body={"ignore_eos": True}, **self._asked
                ):
                    self.text += chunk.choices[0].delta.content or ""
                    self.reason = chunk.choices[0].finish_reason
                    if self.text:
                        self.begun.set()
        except Exception as error:
            self.error = error


@contextmanager
def fleet(*settings: str, **options: Any) -> Iterator[Fleet]:
    with command(*settings, **options) as (process, said):
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("serving org/fake at http://127.0.0.1:"), "".join(said)
        yield Fleet(process, line.split()[-1], said)


@contextmanager
def command(
    *settings: str, keys: Path | None = None, data: Path | None = None, address: str = "local"
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command, and its lines on stderr; killed at the end, with all that it has started.

    address: of a Ray cluster; "local" for one of its own."""
    said: list[str] = []
    words = [sys.executable, "-m", "tests.serve.cluster.command", str(keys or "-"), str(data or "-")]
    environment = {**os.environ, "RAY_ADDRESS": address}
    with subprocess.Popen(
        [*words, *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr
        reading = threading.Thread(target=lambda err: said.extend(err), args=(process.stderr,), daemon=True)
        reading.start()
        started = psutil.Process(process.pid)
        children: list[psutil.Process] = []
        try:
            yield process, said
        finally:
            if process.poll() is None:
                children = started.children(recursive=True)
            process.kill()
            for child in children:
                if child.is_running():
                    child.kill()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
