"""From a job to a worker with its model in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from pipeline.answer.answers import Answers
from pipeline.answer.parsed import Expected
from pipeline.config import EngineConfig, JobConfig
from pipeline.engine.blocks import AttentionCost
from pipeline.engine.embedder import Embedder
from pipeline.engine.engine import Engine
from pipeline.engine.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.llama_devices import sees_gpu, visible_gpus
from pipeline.engine.llama_embedding import SHORT_TOKENS, LlamaEmbeddingModel, is_embedding_model
from pipeline.engine.llama_kernels import cpu_features
from pipeline.engine.model_thread import ModelThread
from pipeline.engine.runner import Runner
from pipeline.engine.settings import EngineSettings, fit, gpu_cache_memory, gpu_layers
from pipeline.errors import ConfigError
from pipeline.model.fast_types import fast_types
from pipeline.model.model_template import read_chat_template
from pipeline.model.models import LocalModel, default_cache, fetch_model
from pipeline.model.parts import model_name
from pipeline.model.repack import repacked
from pipeline.model.requantiser import Requantiser
from pipeline.native.cure import with_cuda
from pipeline.native.in_use import kernels_of
from pipeline.native.proof import proven
from pipeline.native.trial import Trial
from pipeline.output.fingerprint import Fingerprint
from pipeline.output.manifest import Manifest
from pipeline.respond.ask import Answer
from pipeline.respond.embedding_responder import EmbeddingResponder
from pipeline.respond.generative_responder import GenerativeResponder
from pipeline.respond.responders import Responder
from pipeline.respond.reuse import Elsewhere
from pipeline.storage import Storage
from pipeline.text.chat_format import ChatFormats
from pipeline.worker import Identity, Worker

Board = Callable[[str], Elsewhere[Answer]]
"""The answers that the job's other workers with kernels of this id have given."""


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
    _check_gpu(job.engine, gpus)
    model = fetch_model(job.model)
    manifest = Manifest(Storage.at(job.output.path), fingerprint)
    thread = ModelThread()

    def load() -> Worker:
        file, notes = _load(job, model, manifest, threads=threads, gpus=gpus)
        kernels = kernels_of(file)
        manifest.note_kernels(kernels)
        parsed = Expected.from_json(fingerprint.parsed) if fingerprint.parsed else None
        identity = Identity(model_id(job, model.path), fingerprint.digest, kernels.id, parsed)
        elsewhere = board(kernels.id) if board else None
        responder = _responder(job, file, identity, thread, threads=threads, gpus=gpus, elsewhere=elsewhere)
        return Worker(job, identity, manifest, responder, notes)

    try:
        return thread.call(load)
    except BaseException:
        thread.close()
        raise


def _load(
    job: JobConfig, model: LocalModel, manifest: Manifest, *, threads: int, gpus: float
) -> tuple[LlamaFile, tuple[str, ...]]:
    """The model, or its copy for CPUs, in memory; and what its trial found that people should know."""
    trial = Trial(model.path, job.engine, threads, gpus > 0, gpu_layers(job.engine, on_gpu=gpus > 0))
    proof = proven(trial, default_cache())
    if job.model.cpu_repack and not gpus:
        fast = fast_types(cpu_features(), extra_buffers=proof.extra_buffers)
        copy = repacked(model, Requantiser(threads, extra_buffers=proof.extra_buffers), fast)
        manifest.note_repack(copy.record)
        trial = replace(trial, path=copy.path)
        proof = proven(trial, default_cache())
    return LlamaFile(trial.path, trial.gpu_layers, extra_buffers=proof.extra_buffers), proof.notes


def model_id(job: JobConfig, path: Path) -> str:
    """The id in the answers: the job's, else the file's name."""
    return job.model.id or model_name(path)


def _responder(
    job: JobConfig,
    file: LlamaFile,
    identity: Identity,
    thread: ModelThread,
    *,
    threads: int,
    gpus: float,
    elsewhere: Elsewhere[Answer] | None,
) -> Responder:
    names = frozenset({"local", identity.model_id})
    if is_embedding_model(file.traits):
        model = LlamaEmbeddingModel(file, job.engine, threads=threads, on_gpu=gpus > 0)
        answers = Answers(
            identity.model_id, identity.fingerprint, pa.schema([]), "embed", kernels=identity.kernels
        )
        reuse = job.engine.reuse_answers
        short = SHORT_TOKENS if job.engine.batch == "auto" and not gpus else None
        embedder = Embedder(model, short)
        return EmbeddingResponder(
            embedder, answers, names=names, truncate=job.request.truncate, reuse=reuse, thread=thread
        )
    memory = _cache_memory(job.engine, file, threads, gpus)
    settings = fit(job.engine, file.traits, threads=threads, on_gpu=gpus > 0, memory=memory)
    return _generative(job, file, settings, identity, names, thread, elsewhere)


def _generative(
    job: JobConfig,
    file: LlamaFile,
    settings: EngineSettings,
    identity: Identity,
    names: frozenset[str],
    thread: ModelThread,
    elsewhere: Elsewhere[Answer] | None,
) -> GenerativeResponder:
    model = LlamaGenerativeModel(file, settings)
    engine = Engine(
        model,
        slots=settings.slots,
        step_tokens=settings.ubatch,
        samplers=settings.threads,
        reproducible=settings.split,
        attention=AttentionCost.of(
            file.traits.query_values, file.traits.parameters, kernels_of(file).buffers
        ),
        share_prefixes=job.engine.share_prefixes,
        skip_forced=job.engine.skip_forced,
    )
    vocabulary = model.vocabulary
    formats = ChatFormats.of_model(vocabulary, read_chat_template(job.model))
    answers = Answers(
        identity.model_id,
        identity.fingerprint,
        pa.schema([]),
        vocabulary=vocabulary,
        formats=formats,
        kernels=identity.kernels,
        parsed=identity.parsed,
    )
    return GenerativeResponder(
        Runner(engine, thread),
        vocabulary,
        answers,
        names=names,
        context=settings.context,
        limit=file.traits.context,
        seconds=job.retry.row_deadline,
        formats=formats,
        reuse=job.engine.reuse_answers,
        elsewhere=elsewhere,
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
