"""The floor of the benchmark: llama_decode alone, over batches that were made beforehand.

It decodes what a perfect engine would: the same prompts, as many tokens for each row as nightherd
generated, shared prefixes once, every slot refilled at once. It neither samples nor reads or writes rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import llama_cpp as lib
from bench_tasks import Result, Task

from pipeline.chat.prompts import PromptBuilder, embedding_inputs
from pipeline.config import EngineConfig
from pipeline.engine.embedder import pack
from pipeline.engine.llama.embedding import SHORT_TOKENS, embedding_settings
from pipeline.engine.llama.llama import LlamaBatch, LlamaFile, LlamaVocabulary, new_context
from pipeline.engine.model import Batch
from pipeline.engine.settings import EngineSettings, fit
from pipeline.request.schema import ChatRequest, CompletionRequest, EmbeddingRequest, parse_request

_PLENTY = 1 << 40


@dataclass(slots=True)
class Line:
    """One row: its prompt, and how many tokens it generates."""

    prompt: list[int]
    length: int
    slot: int = -1
    filled: int = 0


@dataclass(frozen=True)
class Call:
    """One llama_decode, and the slots that are emptied and given the shared prefix before it."""

    batch: LlamaBatch
    fresh: tuple[int, ...]


class GenerationFloor:
    """Prompts and as many tokens as each row of nightherd's run got."""

    def __init__(self, model: Path, *, slots: int, threads: int, context: int) -> None:
        """context: tokens of one row."""
        self._file = LlamaFile(model)
        config = EngineConfig(slots=slots, context=context, reproducible=False)
        settings = fit(config, self._file.traits, threads=threads, on_gpu=False, memory=_PLENTY)
        # One sequence more than slots holds the shared prefix.
        self._settings = replace(settings, sequences=settings.sequences + 1)
        self._context = new_context(self._file, self._settings)
        self._memory = lib.llama_get_memory(self._context.value)

    def run(self, task: Task, lengths: Sequence[int]) -> Result:
        """lengths: tokens that each row generates, at least one."""
        lines = _lines(self._file, task, lengths, self._settings.context)
        self._prefix = _common([line.prompt for line in lines])
        self._hold(lines[0].prompt[: self._prefix])
        calls = _calls(lines, self._prefix, self._settings)
        began = time.perf_counter()
        for call in calls:
            for slot in call.fresh:
                self._freshen(slot)
            _check(lib.llama_decode(self._context.value, call.batch.struct))
            lib.llama_synchronize(self._context.value)
        seconds = time.perf_counter() - began
        return Result(seconds, len(lines), sum(len(line.prompt) for line in lines), sum(lengths), 0.0)

    def _hold(self, prefix: list[int]) -> None:
        """The shared prefix stays in a sequence of its own, as it does in a long job."""
        lib.llama_memory_clear(self._memory, True)
        if prefix:
            batch = _llama_batch([(self._holder, 0, prefix)])
            _check(lib.llama_decode(self._context.value, batch.struct))

    @property
    def _holder(self) -> int:
        return self._settings.slots

    def _freshen(self, slot: int) -> None:
        lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if self._prefix:
            lib.llama_memory_seq_cp(self._memory, self._holder, slot, 0, self._prefix)


class EmbeddingFloor:
    """Inputs packed by length into full calls."""

    def __init__(self, model: Path, *, threads: int) -> None:
        self._file = LlamaFile(model)
        self._settings = embedding_settings(EngineConfig(), self._file.traits, threads=threads, on_gpu=False)
        capacity = max(self._settings.batch, self._settings.context)
        self._context = new_context(self._file, replace(self._settings, batch=capacity), embedding=True)

    def run(self, task: Task) -> Result:
        batches = _embedding_batches(self._file, task, self._settings)
        tokens = sum(batch.struct.n_tokens for batch in batches)
        began = time.perf_counter()
        for batch in batches:
            _check(lib.llama_encode(self._context.value, batch.struct))
            lib.llama_synchronize(self._context.value)
        return Result(time.perf_counter() - began, len(task.bodies), tokens, 0, 0.0)


def _lines(file: LlamaFile, task: Task, lengths: Sequence[int], context: int) -> list[Line]:
    builder = PromptBuilder(LlamaVocabulary(file), context)
    lines = []
    for body, length in zip(task.bodies, lengths, strict=True):
        request = parse_request(task.url, body)
        assert isinstance(request, ChatRequest | CompletionRequest)
        lines.append(Line(builder.build(request), length))
    return lines


def _common(prompts: list[list[int]]) -> int:
    """How many tokens all begin with; their last ones are decoded for each."""
    first, last = min(prompts), max(prompts)
    length = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return min(length, min(map(len, prompts)) - 1)


def _calls(lines: list[Line], prefix: int, settings: EngineSettings) -> list[Call]:
    """Continuous batching as a list: each step one token of every running row, and whole new prompts."""
    waiting, free = list(reversed(lines)), list(range(settings.slots))
    running: list[Line] = []
    calls = []
    while waiting or running:
        pieces = [(row.slot, row.filled, row.prompt[:1]) for row in running]
        room, fresh = settings.ubatch - len(pieces), []
        while waiting and free and (not pieces or len(waiting[-1].prompt) - prefix <= room):
            row = waiting.pop()
            row.slot, new = free.pop(0), row.prompt[prefix:]
            pieces.append((row.slot, prefix, new))
            room -= len(new)
            row.filled = len(row.prompt) - 1
            fresh.append(row.slot)
            running.append(row)
        calls.append(Call(_llama_batch(sorted(pieces)), tuple(fresh)))
        running = _advance(running, free)
    return calls


def _advance(running: list[Line], free: list[int]) -> list[Line]:
    for row in running:
        row.filled += 1
        # The last token of a row is never decoded.
        row.length -= 1
        if not row.length:
            free.append(row.slot)
    return [row for row in running if row.length]


def _embedding_batches(file: LlamaFile, task: Task, settings: EngineSettings) -> list[LlamaBatch]:
    vocabulary = LlamaVocabulary(file)
    inputs: list[list[int]] = []
    for body in task.bodies:
        request = parse_request(task.url, body)
        assert isinstance(request, EmbeddingRequest)
        inputs += embedding_inputs(vocabulary, request)
    packed = pack([len(tokens) for tokens in inputs], settings.batch, settings.sequences, SHORT_TOKENS)
    return [
        _llama_batch([(n, 0, inputs[index]) for n, index in enumerate(call)], every=True) for call in packed
    ]


def _llama_batch(pieces: Sequence[tuple[int, int, list[int]]], *, every: bool = False) -> LlamaBatch:
    """pieces: sequence id, first position, tokens. every: outputs of all tokens, not of each last one."""
    batch = Batch([], [], [], [])
    for sequence, start, tokens in pieces:
        batch.add(sequence, start, tokens, len(tokens) if every else 1)
    prepared = LlamaBatch(len(batch))
    prepared.fill(batch)
    return prepared


def _check(status: int) -> None:
    if status:
        raise SystemExit(f"llama.cpp returned {status} for a batch of the floor")
