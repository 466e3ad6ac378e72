"""A trial of llama.cpp, to be run in a process of its own: it may die of it.

`python -m pipeline.native.trial_process` reads a `Trial` as JSON from its standard input. It writes the
`Findings` as JSON to its standard output. Where llama.cpp refuses the model, it ends with the status
`own_process.REFUSED`, and the reason on stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.llama.embedding import LlamaEmbeddingModel, is_embedding_model
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.model import Batch, Vocabulary
from pipeline.engine.settings import fit
from pipeline.errors import NightherdError
from pipeline.native.in_use import kernels_of
from pipeline.native.own_process import REFUSED
from pipeline.native.trial import Findings, Trial

_TEXTS = 8
_TEXT_TOKENS = 24
_THREAD_TOKENS = 64
_STEPS = 3
_CONTEXT = 256
_PLENTY = 1 << 40  # bytes: the few cells of a trial fit anywhere


def main() -> int:
    try:
        findings = run(Trial.from_json(sys.stdin.read()))
    except NightherdError as error:
        print(error, file=sys.stderr)
        return REFUSED
    print(findings.to_json())
    return 0


def run(trial: Trial) -> Findings:
    """Loads the model, decodes, compares and measures. Raises ModelError, WorkerError."""
    began = time.perf_counter()
    file = LlamaFile(trial.path, trial.gpu_layers, extra_buffers=trial.extra_buffers)
    subject = _Embedding(file, trial) if is_embedding_model(file.traits) else _Generation(file, trial)
    texts = _texts(subject.vocabulary, subject.room)
    alone = subject.results(texts[-1:])
    started = time.perf_counter()
    together = subject.results(texts)
    seconds = time.perf_counter() - started
    return Findings(
        kernels=kernels_of(file),
        layers=file.placement.layers,
        agreement=_cosine(alone[-1], together[-1]),
        prompt_speed=sum(map(len, texts)) / seconds,
        decode_speed=subject.decode_speed(texts),
        speedup=_speedup(subject, trial.threads),
        seconds=time.perf_counter() - began,
        weights=file.parameters,
    )


class _Generation:
    """A generative model under trial. A result is the logits after a text."""

    def __init__(self, file: LlamaFile, trial: Trial) -> None:
        small = {"slots": _TEXTS, "context": min(_CONTEXT, file.traits.context), "batch": "auto"}
        config = trial.engine.model_copy(update={**small, "ubatch": "auto"})
        threads, memory = trial.threads, _PLENTY
        settings = fit(config, file.traits, threads=threads, on_gpu=trial.on_gpu, memory=memory)
        self._model = LlamaGenerativeModel(file, settings)
        self.vocabulary: Vocabulary = self._model.vocabulary
        self.use_threads = self._model.use_threads
        self.room = _TEXTS * _TEXT_TOKENS

    def results(self, texts: Sequence[list[int]]) -> NDArray[np.float32]:
        """Shape [len(texts), words]. The last text has the last sequence, however many there are."""
        for sequence in range(_TEXTS):
            self._model.forget(sequence)
        batch = Batch([], [], [], [])
        for sequence, text in enumerate(texts, _TEXTS - len(texts)):
            batch.add(sequence, 0, text, 1)
        return self._model.decode(batch).copy()

    def decode_speed(self, texts: Sequence[list[int]]) -> float:
        """Goes on behind the texts of the last call of `results`."""
        position = len(texts[0])

        def step() -> None:
            nonlocal position
            batch = Batch([], [], [], [])
            for sequence, text in enumerate(texts):
                batch.add(sequence, position, text[:1], 1)
            self._model.decode(batch)
            position += 1

        return len(texts) / min(_seconds(step) for _ in range(_STEPS))


class _Embedding:
    """An embedding model under trial. A result is a text's vector."""

    def __init__(self, file: LlamaFile, trial: Trial) -> None:
        self._model = LlamaEmbeddingModel(file, trial.engine, threads=trial.threads, on_gpu=trial.on_gpu)
        self.vocabulary: Vocabulary = self._model.vocabulary
        self.use_threads = self._model.use_threads
        self.room = min(self._model.batch_tokens, self._model.max_sequences * _TEXT_TOKENS)

    def results(self, texts: Sequence[list[int]]) -> NDArray[np.float32]:
        """Shape [len(texts), dimensions]."""
        return self._model.embed(texts)

    def decode_speed(self, texts: Sequence[list[int]]) -> float:
        return 0.0


def _texts(vocabulary: Vocabulary, room: int) -> list[list[int]]:
    """Different texts of equal length, at most `room` tokens together, and `_TEXTS` where they fit."""
    sample = files("pipeline.model").joinpath("sample.txt").read_text(encoding="utf-8")
    tokens = vocabulary.tokenize(sample, add_special=False, parse_special=False)
    texts = [tokens[at : at + _TEXT_TOKENS] for at in range(0, len(tokens) - _TEXT_TOKENS, _TEXT_TOKENS)]
    return texts[: min(_TEXTS, max(1, room // _TEXT_TOKENS))]


def _speedup(subject: _Generation | _Embedding, threads: int) -> float:
    if threads == 1:
        return 1.0
    texts = [_texts(subject.vocabulary, subject.room)[0] * (_THREAD_TOKENS // _TEXT_TOKENS)]
    all_threads = _seconds(lambda: subject.results(texts))
    subject.use_threads(1)
    return _seconds(lambda: subject.results(texts)) / all_threads


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return max(1e-9, time.perf_counter() - began)


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of the deviations from their means; NaN where a number is not finite."""
    a, b = (line.astype(np.float64) - line.mean(dtype=np.float64) for line in (one, other))
    return float(a @ b / max(1e-30, np.sqrt((a @ a) * (b @ b))))


if __name__ == "__main__":
    sys.exit(main())
