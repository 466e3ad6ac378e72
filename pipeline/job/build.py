"""From a job to a worker with its model in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.answer.parsed import Expected
from pipeline.chat.chat_format import ChatFormats
from pipeline.config import EngineConfig, JobConfig
from pipeline.engine.blocks import AttentionCost
from pipeline.engine.embedder import Embedder
from pipeline.engine.engine import STREAM_TOKENS, Engine
from pipeline.engine.llama.devices import sees_gpu, visible_gpus
from pipeline.engine.llama.embedding import (
    SHORT_TOKENS,
    LlamaEmbeddingModel,
    embedding_settings,
    is_embedding_model,
)
from pipeline.engine.llama.kernels import cpu_features
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel, LlamaVocabulary
from pipeline.engine.model_thread import ModelThread
from pipeline.engine.priority import Deadlines
from pipeline.engine.runner import Runner
from pipeline.engine.settings import EngineSettings, fit, gpu_cache_memory, gpu_layers
from pipeline.errors import ConfigError, RowError
from pipeline.files.storage import Storage
from pipeline.job.responder import responder_for
from pipeline.job.worker import Identity, Worker
from pipeline.model.fast_types import fast_types
from pipeline.model.model_template import read_chat_template
from pipeline.model.models import LocalModel, default_cache, fetch_model
from pipeline.model.parts import model_name
from pipeline.model.repack import repacked
from pipeline.model.requantiser import Requantiser
from pipeline.native.cure import with_cuda
from pipeline.native.in_use import kernels_of
from pipeline.native.kernels import Kernels, system_fingerprint
from pipeline.native.proof import proven
from pipeline.native.trial import Trial
from pipeline.output.answered_ids import AnsweredIds
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.request.schema import Request
from pipeline.respond.about import About
from pipeline.respond.ask import Generations
from pipeline.respond.embedding_service import EmbeddingService
from pipeline.respond.generative_service import GenerativeService
from pipeline.respond.preparation import EmbeddingPreparation, GenerativePreparation
from pipeline.respond.reuse import Elsewhere
from pipeline.respond.service import Service

Built = TypeVar("Built")
Board = Callable[[str], Elsewhere[Generations]]
"""The answers that the job's other workers with kernels of this id have given."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model in memory. repack: the record of its copy for CPUs, where it is one. notes: what people should
    know of it."""

    file: LlamaFile
    model_id: str
    kernels: Kernels
    repack: Mapping[str, Any] | None
    notes: tuple[str, ...]


def build_worker(
    job: JobConfig,
    fingerprint: Fingerprint,
    *,
    threads: int,
    gpus: float,
    board: Board | None = None,
) -> Worker:
    """A worker on this node. Fetches the model where the node has none yet, and tries llama.cpp on it first.

    threads: CPUs that the worker may keep busy. gpus: how many it was given, or its share of one.
    board: where the job's workers share their answers. Raises ModelError, ConfigError, MachineError.
    """
    manifest = Manifest(Storage.at(job.output.path), fingerprint)
    parsed = Expected.from_json(fingerprint.parsed) if fingerprint.parsed else None
    skips = AnsweredIds.of(job.input.skipped)

    def worker(loaded: _Loaded, service: GenerativeService | EmbeddingService) -> Worker:
        if loaded.repack is not None:
            manifest.note_repack(loaded.repack)
        manifest.note_kernels(loaded.kernels)
        identity = Identity(loaded.model_id, fingerprint.digest, loaded.kernels.id, parsed)
        elsewhere = board(loaded.kernels.id) if board else None
        responder = responder_for(job, service, identity, elsewhere)
        return Worker(job, identity, manifest, responder, loaded.notes, skips)

    return _built(job, fingerprint.digest, worker, threads=threads, gpus=gpus)


def build_service(job: JobConfig, digest: str, *, threads: int, gpus: float) -> Service:
    """A service on this node, as `build_worker`. Of the job it takes the model, the engine and the deadlines.

    digest: tells this service's answers from those of others, in ids and in system_fingerprint.
    """
    return _built(job, digest, lambda _, service: service, threads=threads, gpus=gpus)


def _built(
    job: JobConfig,
    digest: str,
    use: Callable[[_Loaded, GenerativeService | EmbeddingService], Built],
    *,
    threads: int,
    gpus: float,
) -> Built:
    """What `use` makes of the model, once it is loaded and served."""
    _check_gpu(job.engine, gpus)
    model = fetch_model(job.model)
    thread = ModelThread()

    def load() -> Built:
        loaded = _load(job, model, threads=threads, gpus=gpus)
        return use(loaded, _service(job, loaded, digest, thread, threads=threads, gpus=gpus))

    try:
        return thread.call(load)
    except BaseException:
        thread.close()
        raise


def _load(job: JobConfig, model: LocalModel, *, threads: int, gpus: float) -> _Loaded:
    """The model, or its copy for CPUs, in memory; and what its trial found."""
    trial = Trial(model.path, job.engine, threads, gpus > 0, gpu_layers(job.engine, on_gpu=gpus > 0))
    proof = proven(trial, default_cache())
    repack, notes = None, proof.notes
    if job.model.cpu_repack and not gpus:
        fast = fast_types(cpu_features(), extra_buffers=proof.extra_buffers)
        copy = repacked(model, Requantiser(threads, extra_buffers=proof.extra_buffers), fast)
        repack, remark = copy.record, (copy.note,) if copy.note else ()
        trial = replace(trial, path=copy.path)
        proof = proven(trial, default_cache())
        notes = (*remark, *proof.notes)
    file = LlamaFile(trial.path, trial.gpu_layers, extra_buffers=proof.extra_buffers)
    return _Loaded(file, model_id(job, model.path), kernels_of(file), repack, notes)


def model_id(job: JobConfig, path: Path) -> str:
    """The id in the answers: the job's, else the file's name."""
    return job.model.id or model_name(path)


def _service(
    job: JobConfig, loaded: _Loaded, digest: str, thread: ModelThread, *, threads: int, gpus: float
) -> GenerativeService | EmbeddingService:
    file = loaded.file
    kernels = loaded.kernels.id
    about = About(loaded.model_id, digest, system_fingerprint(digest, kernels), kernels, facts=_facts(file))
    if is_embedding_model(file.traits):
        model = LlamaEmbeddingModel(file, job.engine, threads=threads, on_gpu=gpus > 0)
        short = SHORT_TOKENS if job.engine.batch == "auto" and not gpus else None
        return EmbeddingService(
            Embedder(model, short),
            about,
            truncate=job.request.truncate,
            reuse=job.engine.reuse_answers,
            thread=thread,
        )
    memory = _cache_memory(job.engine, file, threads, gpus)
    settings = fit(job.engine, file.traits, threads=threads, on_gpu=gpus > 0, memory=memory)
    return _generative(job, loaded, settings, about, thread)


def _facts(file: LlamaFile) -> dict[str, int]:
    return {
        "n_ctx_train": file.traits.context,
        "n_embd": file.dimensions,
        "n_params": file.parameters,
        "size": file.size,
    }


def _generative(
    job: JobConfig, loaded: _Loaded, settings: EngineSettings, about: About, thread: ModelThread
) -> GenerativeService:
    traits = loaded.file.traits
    model = LlamaGenerativeModel(loaded.file, settings)
    engine = Engine(
        model,
        slots=settings.slots,
        step_tokens=settings.ubatch,
        stream_tokens=settings.ubatch if loaded.kernels.devices else STREAM_TOKENS,
        samplers=settings.threads,
        reproducible=settings.split,
        attention=AttentionCost.of(traits.query_values, traits.parameters, loaded.kernels.buffers),
        share_prefixes=job.engine.share_prefixes,
        skip_forced=job.engine.skip_forced,
    )
    return GenerativeService(
        Runner(engine, thread),
        model.vocabulary,
        about,
        context=settings.context,
        limit=traits.context,
        deadlines=Deadlines(job.retry.row_deadline, job.retry.row_deadline),
        formats=ChatFormats.of_model(model.vocabulary, read_chat_template(job.model)),
    )


def _check_gpu(engine: EngineConfig, gpus: float) -> None:
    if gpus and engine.gpu_layers != 0 and not sees_gpu():
        raise ConfigError(
            "cluster.gpus_per_actor: a worker was given a GPU, but llama.cpp sees none: it was compiled "
            f"without GPU support, or the GPU's driver is missing. For an NVIDIA GPU: {with_cuda()}; "
            "0 runs the job on CPUs"
        )


def _cache_memory(engine: EngineConfig, file: LlamaFile, threads: int, gpus: float) -> int:
    """Bytes that the worker's KV cache may take. It lies where the model's layers lie."""
    layers = gpu_layers(engine, on_gpu=gpus > 0)
    cards = visible_gpus() if layers else []
    if not cards:
        return _host_share(threads) // 3
    on_cards = gpu_cache_memory(cards, gpus or 1.0, file.size)
    return on_cards if layers < 0 else min(on_cards, _host_share(threads) // 3)


def _host_share(threads: int) -> int:
    """Bytes: the machine's memory by the worker's part of its CPUs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return total * threads // max(threads, os.cpu_count() or 1)


def build_preparation(job: JobConfig, *, on_gpu: bool) -> Callable[[Request | RowError, str], int]:
    """Counts the tokens of requests' prompts and refuses what a worker would refuse; computes nothing.

    on_gpu: whether the job's workers have GPUs. Raises ModelError, ConfigError.
    """
    model = fetch_model(job.model)
    file = LlamaFile(model.path, extra_buffers=False)
    vocabulary, names = LlamaVocabulary(file), About(model_id(job, model.path)).names
    if is_embedding_model(file.traits):
        embedding = EmbeddingPreparation(
            vocabulary,
            names,
            context=embedding_settings(job.engine, file.traits, threads=1, on_gpu=on_gpu).context,
            dimensions=file.dimensions,
            truncate=job.request.truncate,
        )
        return lambda request, name: sum(map(len, embedding.prepare(request)[1]))
    generative = GenerativePreparation(
        vocabulary,
        ChatFormats.of_model(vocabulary, read_chat_template(job.model)),
        names,
        context=fit(job.engine, file.traits, threads=1, on_gpu=on_gpu, memory=1 << 50).context,
        limit=file.traits.context,
    )
    return lambda request, name: len(generative.prepare(request, name).tokens)
