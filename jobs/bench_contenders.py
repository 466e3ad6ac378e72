"""Who runs a task: nightherd with several settings, llama-server, the floor; each in a process of its own."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench_floor import EmbeddingFloor, GenerationFloor
from bench_nightherd import Nightherd
from bench_peers import Server, ServerSettings
from bench_process import Apart
from bench_tasks import Result, Task
from minilm import build_minilm

from pipeline.config import ModelConfig
from pipeline.model.models import fetch_model

OURS, PEER, FLOOR = "nightherd", "llama-server", "floor"
LOOSE, FREE = "nightherd, not reproducible", "nightherd, unconstrained"
NO_SHARING, NO_REUSE, NO_SKIPPING = (
    f"nightherd, {setting} off" for setting in ("share_prefixes", "reuse_answers", "skip_forced")
)
REPACKED = "nightherd, cpu_repack"

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    OURS: {},
    LOOSE: {"engine.reproducible": False},
    FREE: {},
    NO_SHARING: {"engine.share_prefixes": False},
    NO_REUSE: {"engine.reuse_answers": False},
    NO_SKIPPING: {"engine.skip_forced": False},
    REPACKED: {"model.cpu_repack": True},
}
"""What the job of each nightherd sets beside its slots and context."""

LINEUPS: Mapping[str, tuple[str, ...]] = {
    "generation": (OURS, LOOSE, PEER, FLOOR),
    "labeling": (OURS, LOOSE, PEER, FLOOR),
    "embeddings": (OURS, PEER, FLOOR),
    "enum": (OURS, LOOSE, PEER),
    "object": (OURS, LOOSE, PEER),
    "documents": (OURS, LOOSE, PEER),
    "duplicates": (OURS, NO_REUSE, PEER),
    "constrained": (OURS, FREE, PEER),
}
ABLATIONS = (NO_SHARING, NO_REUSE, NO_SKIPPING, REPACKED)
NAMES = (*SETTINGS, PEER, FLOOR)
BATCH = 512

Run = Callable[[Task], Result]


def baselines(task: str) -> list[str]:
    """The contenders of a task that the others are compared with."""
    return [name for name in LINEUPS[task] if name in (PEER, FLOOR, FREE, NO_REUSE)]


class Contenders:
    """The contenders of one kind of task, all warm at once, until `stack` is closed."""

    def __init__(self, task: Task, options: argparse.Namespace, stack: ExitStack) -> None:
        self._task = task
        self._options = options
        self._stack = stack
        self._model = _model(task, options)
        # The floor generates as many tokens for each row as nightherd has just done.
        self._lengths: list[int] = []

    def start(self) -> dict[str, Run]:
        """By name, in the order in which they take their turns."""
        ablations = ABLATIONS if self._options.ablations and not self._task.embeds else ()
        names = dict.fromkeys((*LINEUPS[self._task.name], *ablations))
        if self._options.only:
            names = [name for name in names if name in self._options.only]
        special = {OURS: self._ours, FREE: self._free, PEER: self._server, FLOOR: self._floor}
        return {name: special[name]() if name in special else self._plain(name) for name in names}

    def _plain(self, name: str) -> Run:
        process = self._nightherd(name)
        return lambda task: process.run(task)[0]

    def _ours(self) -> Run:
        process = self._nightherd(OURS)

        def run(task: Task) -> Result:
            result, self._lengths = process.run(task)
            return result

        return run

    def _free(self) -> Run:
        process = self._nightherd(FREE)
        return lambda task: process.run(task.free())[0]

    def _server(self) -> Run:
        settings = ServerSettings(str(self._model), **self._sizes, batch=BATCH, embeds=self._task.embeds)
        server = Server(settings, python=self._options.peer_python, binary=self._options.llama_server)
        self._stack.callback(server.close)
        return server.run

    def _floor(self) -> Run:
        if self._task.embeds:
            embeds = self._apart(EmbeddingFloor, self._model, threads=self._options.threads)
            return lambda task: embeds.run(task)[0]
        bare = self._apart(GenerationFloor, self._model, **self._sizes)
        return lambda task: bare.run(task, self._lengths)[0]

    def _nightherd(self, name: str) -> Apart:
        sizes = {"engine.slots": self._options.slots, "engine.context": self._task.context}
        common = {} if self._task.embeds else sizes
        settings = {"model.path": str(self._model), **common, **SETTINGS[name]}
        return self._apart(Nightherd, settings, threads=self._options.threads)

    def _apart(self, contender: Callable[..., Any], *args: Any, **settings: Any) -> Apart:
        process = Apart(contender, *args, **settings)
        self._stack.callback(process.close)
        return process

    @property
    def _sizes(self) -> dict[str, int]:
        options = self._options
        return {"slots": options.slots, "threads": options.threads, "context": self._task.context}


def _model(task: Task, options: argparse.Namespace) -> Path:
    if not task.embeds:
        return fetch_model(ModelConfig(path=options.model)).path
    if options.embedding_model:
        return fetch_model(ModelConfig(path=options.embedding_model)).path
    return build_minilm(Path(tempfile.gettempdir()))
