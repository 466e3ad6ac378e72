"""Chats beside a batch: how long their first token takes, and how fast the batch is when nobody else asks."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from typing import Any

from bench_door_client import Answer, ask_all
from bench_door_contenders import Contender, quantile
from bench_tasks import Body, make_task

POLL_SECONDS = 0.2
ALONE_SECONDS = 20.0
START_SECONDS = 60.0
_FINAL = ("completed", "failed", "expired", "cancelled")


def batch_figures(door: Contender, rows: int, chats: int) -> dict[str, Any]:
    """Seconds, which it also prints. rows: of the batch, more than are answered while the chats are asked."""
    service = _Service(door)
    _chats(door, 1, 0)  # The instruction that all share.
    idle = _chats(door, chats, 1)
    batch = service.start([*make_task("generation", rows, 1000).bodies])
    service.await_work(batch)
    busy = _chats(door, chats, 2)
    before = service.tokens(), time.perf_counter()
    time.sleep(ALONE_SECONDS)
    after = service.tokens(), time.perf_counter()
    still = service.ask("GET", f"/v1/batches/{batch}")["status"]
    if still != "in_progress":
        raise SystemExit(f"the batch was {still} before the end: give it more --batch-rows")
    service.ask("POST", f"/v1/batches/{batch}/cancel")
    figures = {
        "first_idle_p50": quantile(idle, 0.5),
        "first_idle_p95": quantile(idle, 0.95),
        "first_beside_p50": quantile(busy, 0.5),
        "first_beside_p95": quantile(busy, 0.95),
        "batch_tokens_per_second_alone": (after[0] - before[0]) / (after[1] - before[1]),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    print(f"first token beside / idle: {figures['first_beside_p50'] / figures['first_idle_p50']:.2f}")
    return figures


def _chats(door: Contender, chats: int, part: int) -> list[float]:
    """Seconds to the first token of chats, one after another."""
    bodies = make_task("labeling", chats, 2000 + part).bodies
    answers: list[Answer] = ask_all(door.address, "/v1/chat/completions", bodies, 1, stream=True)
    return [answer.first for answer in answers if answer.each]


class _Service:
    def __init__(self, door: Contender) -> None:
        self._url = f"http://{door.address}"

    def start(self, bodies: list[Body]) -> str:
        """The id of a batch of completions that has begun."""
        lines = (
            {"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": body}
            for i, body in enumerate(bodies)
        )
        file = self._upload("\n".join(map(json.dumps, lines)))
        made = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
        return str(self.ask("POST", "/v1/batches", made)["id"])

    def await_work(self, batch: str) -> None:
        """Returns when some of the batch is being answered."""
        end = time.monotonic() + START_SECONDS
        while self._metric("vllm:num_requests_running") == 0:
            found = self.ask("GET", f"/v1/batches/{batch}")
            if found["status"] in _FINAL or time.monotonic() > end:
                raise SystemExit(f"the batch is {found['status']}: {found.get('errors')}")
            time.sleep(POLL_SECONDS)

    def tokens(self) -> float:
        """That the engine has generated."""
        return self._metric("vllm:generation_tokens_total")

    def _metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        return self._sent(urllib.request.Request(f"{self._url}{path}", data, method=method))

    def _upload(self, content: str) -> str:
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{edge}\r\n'
        head += 'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        data = f"{head}{content}\r\n--{edge}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        return str(self._sent(urllib.request.Request(f"{self._url}/v1/files", data, kind))["id"])

    @staticmethod
    def _sent(request: urllib.request.Request) -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))
