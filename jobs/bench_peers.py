"""llama-server as the benchmark's peer: started, kept busy by many clients at once, and counted."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_schemas import agreement
from bench_tasks import Body, Result, Task, without

# Texts of one embedding request: a request each would measure HTTP rather than the server.
TEXTS = 16
_READY_SECONDS = 120


@dataclass(frozen=True)
class ServerSettings:
    """context: tokens of one slot. batch: tokens of a physical batch.."""

    model: str
    slots: int
    threads: int
    context: int
    batch: int
    embeds: bool


class Server:
    """A llama-server with a model in memory, and clients that keep twice its slots busy."""

    def __init__(self, settings: ServerSettings, *, python: str | None, binary: str | None) -> None:
        """python: the interpreter that has xllamacpp. binary: a native llama-server to use instead."""
        self._clients = 2 * settings.slots
        self._process: subprocess.Popen[str]
        if binary:
            self._start_binary(settings, binary)
        else:
            self._start_package(settings, python or sys.executable)
        self._await_health()
        self._connections = threading.local()

    @property
    def address(self) -> str:
        """Host and port."""
        return self._host

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, task: Task) -> Result:
        """All of the task's rows, as fast as the server answers them."""
        answers, seconds = self.answers(task.url, requests(task))
        usages = [answer["usage"] for answer in answers]
        return Result(
            seconds,
            len(task.bodies),
            sum(usage["prompt_tokens"] for usage in usages),
            sum(usage.get("completion_tokens", 0) for usage in usages),
            agreement=agreement(task.bodies[0], [_text(answer) for answer in answers]),
        )

    def answers(self, url: str, bodies: list[Body]) -> tuple[list[Body], float]:
        """The answers to `bodies`, in order, and the seconds that they took."""
        began = time.perf_counter()
        with ThreadPoolExecutor(self._clients) as clients:
            found = list(clients.map(lambda body: self._post(url, body), bodies))
        return found, time.perf_counter() - began

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _start_package(self, settings: ServerSettings, python: str) -> None:
        script = str(Path(__file__).with_name("bench_server.py"))
        command = [python, script, json.dumps(vars(settings))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        line = next((line for line in self._process.stdout if line.startswith("{")), None)
        if line is None:
            raise SystemExit(f"{python} can't start xllamacpp: pip install xllamacpp, or --peer-python")
        about = json.loads(line)
        self.version, self.system = about["version"], about["system"]
        self._host = urllib.parse.urlsplit(about["address"]).netloc

    def _start_binary(self, settings: ServerSettings, binary: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options: dict[str, Any] = {
            "-m": settings.model,
            "-np": settings.slots,
            "-c": settings.context * settings.slots,
            "-t": settings.threads,
            "-tb": settings.threads,
            "-b": max(settings.batch, 512),
            "-ub": settings.batch,
            "--port": port,
        }
        command = [binary, *(str(part) for option in options.items() for part in option)]
        command += ["--embedding"] if settings.embeds else []
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )
        shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
        self.version, self.system = " ".join((shown.stderr or shown.stdout).split()[:4]), "native binary"
        self._host = f"127.0.0.1:{port}"

    def _await_health(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                connection = http.client.HTTPConnection(self._host, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        self.close()
        raise SystemExit(f"the server at {self._host} did not become ready")

    def _post(self, url: str, body: Body) -> dict[str, Any]:
        connection = getattr(self._connections, "own", None)
        if connection is None:
            connection = self._connections.own = http.client.HTTPConnection(self._host, timeout=600)
        connection.request("POST", url, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise SystemExit(f"the server answered {response.status}: {answer}")
        return dict(answer)


def requests(task: Task) -> list[Body]:
    """The bodies that a server is sent for the rows of `task`."""
    if task.embeds:
        texts = iter(body["input"] for body in task.bodies)
        groups = iter(lambda: list(itertools.islice(texts, TEXTS)), [])
        return [{"input": group, "encoding_format": "base64"} for group in groups]
    if task.grammar:
        return [without(body, "guided_regex") | {"grammar": task.grammar} for body in task.bodies]
    return task.bodies


def _text(answer: Body) -> str:
    """Of a chat or a completion; nothing of an embedding."""
    choice = answer.get("choices", [{}])[0]
    return str(choice.get("message", {}).get("content") or choice.get("text") or "")
