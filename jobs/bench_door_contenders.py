"""What the benchmark of the door asks: nightherd serve, llama-server, and the engine without a door."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
from bench_door_client import Answer
from bench_peers import Server, ServerSettings
from bench_tasks import Task

from pipeline.config import ModelConfig, make_job
from pipeline.model.models import fetch_model
from pipeline.request.schema import Request, parse_request

CONTEXT = 768
"""Tokens of a slot."""
BATCH = 512
_NOWHERE = {"input.path": "unread", "output.path": "memory://unwritten"}


@dataclass(frozen=True)
class Run:
    """measures: by their names in the report; None where it has no such thing."""

    measures: dict[str, float | None]

    @classmethod
    def of(cls, answers: Sequence[Answer], cpu: float) -> Run:
        seconds = max(a.ended for a in answers) - min(a.began for a in answers)
        tokens = sum(a.tokens for a in answers)
        firsts = [a.first for a in answers if a.each]
        between = [gap for a in answers for gap in a.between]
        return cls(
            {
                "tokens": tokens / seconds,
                "requests": len(answers) / seconds,
                "first_p50": quantile(firsts, 0.5),
                "first_p95": quantile(firsts, 0.95),
                "between_p50": quantile(between, 0.5),
                "between_p95": quantile(between, 0.95),
                "cpu": 1000 * cpu / tokens,
            }
        )


def quantile(values: Sequence[float], part: float) -> float | None:
    """None where there are too few values to say."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[round(part * 100) - 1]


@dataclass(frozen=True)
class Contender:
    """A server. address: host and port. pid: of its process."""

    address: str
    pid: int

    def cpu_seconds(self) -> float:
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)


def settings(model: str, slots: int, threads: int) -> dict[str, object]:
    """What nightherd is told, with a door and without."""
    return {
        "model.path": model,
        "engine.slots": slots,
        "engine.threads": threads,
        "engine.context": CONTEXT,
    }


def served(options: argparse.Namespace, stack: ExitStack) -> Contender:
    """`nightherd serve` in a process of its own, ready."""
    told = [f"{k}={v}" for k, v in settings(options.model, options.slots, options.threads).items()]
    data = stack.enter_context(tempfile.TemporaryDirectory())
    command = [sys.executable, "-m", "pipeline.cli", "serve", "--port", "0", "--data", data]
    command += [part for setting in told for part in ("--set", setting)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    stack.callback(_stop, process)
    assert process.stdout
    line = process.stdout.readline()
    if " at http://" not in line:
        raise SystemExit("nightherd serve did not start: run it by hand to see why")
    return Contender(line.split("http://")[1].split("/")[0], process.pid)


def peer(options: argparse.Namespace, stack: ExitStack) -> Contender:
    """llama-server, ready."""
    told = ServerSettings(
        model=str(fetch_model(ModelConfig(path=options.model)).path),
        slots=options.slots,
        threads=options.threads,
        context=CONTEXT,
        batch=BATCH,
        embeds=False,
    )
    server = Server(told, python=options.peer_python, binary=options.llama_server)
    stack.callback(server.close)
    return Contender(server.address, server.pid)


class EngineAlone:
    """The service that the door stands before, in this process, asked by threads that wait."""

    def __init__(self, model: str, slots: int, threads: int) -> None:
        from pipeline.serve.serving import build_here

        job = make_job({}, (_NOWHERE | settings(model, slots, threads)).items(), "benchmark")
        self._service = build_here(job)
        self._slots = slots

    def run(self, task: Task, stream: bool) -> Run:
        """stream: whether the deltas are told, as they are for a stream of the door."""
        before = psutil.Process().cpu_times()
        requests = [parse_request(task.url, body) for body in task.bodies]
        with ThreadPoolExecutor(self._slots) as callers:
            answers = list(callers.map(lambda request: self._ask(request, stream), requests))
        used = psutil.Process().cpu_times()
        return Run.of(answers, used.user + used.system - before.user - before.system)

    def _ask(self, request: Request, stream: bool) -> Answer:
        answer = Answer(time.perf_counter())
        listen = (lambda deltas: answer.each.append(time.perf_counter())) if stream else None
        done = self._service.ask(request, uuid.uuid4().hex, listen=listen).result.result()
        answer.ended = time.perf_counter()
        answer.prompt, answer.tokens = done.usage.prompt_tokens, done.usage.completion_tokens
        return answer


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
