"""Writes a model as Q8_0, and measures on a short sample what it says differently then."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EngineConfig
from pipeline.engine.embedder import Embedder
from pipeline.engine.llama.embedding import LlamaEmbeddingModel, is_embedding_model
from pipeline.engine.llama.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.llama.quantize import quantize
from pipeline.engine.scores import Scores, score
from pipeline.engine.settings import fit

_CONTEXT = 512
_AT_ONCE = 64
_WORDS = 12
_NEAREST = 10

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RepackNote:
    """tokens: places compared. agreement: share of them at which both would say the same token, greedily.

    perplexity: of the original on the sample; perplexity_repacked: of its copy.
    """

    tokens: int
    agreement: float
    perplexity: float
    perplexity_repacked: float

    def __str__(self) -> str:
        return (
            f"on a sample of {self.tokens} tokens {self.agreement:.1%} of the greedy tokens are the same, "
            f"perplexity {self.perplexity:.3f} before, {self.perplexity_repacked:.3f} now"
        )


@dataclass(frozen=True, slots=True)
class VectorNote:
    """What a copy changes in an embedding model's vectors.

    texts: vectors compared, of overlapping pieces of the sample.
    cosine: between a text's vector before and after, the mean; cosine_least: the smallest.
    recall_at_10: the share of a text's ten nearest others that are still among them, the mean.
    """

    texts: int
    cosine: float
    cosine_least: float
    recall_at_10: float

    @classmethod
    def of(cls, before: Vectors, after: Vectors) -> VectorNote:
        """The vectors of the same texts, of length 1, shape [texts, dimensions]; more than ten."""
        cosines = (before * after).sum(axis=1)
        pairs = zip(_nearest(before), _nearest(after), strict=True)
        recall = np.mean([len(np.intersect1d(*pair)) / _NEAREST for pair in pairs])
        return cls(len(before), float(cosines.mean()), float(cosines.min()), float(recall))


@dataclass(frozen=True, slots=True)
class Requantiser:
    """A `Requantise` with llama.cpp on `threads` CPUs. It returns a note's fields.

    extra_buffers: as for `LlamaFile`."""

    threads: int
    extra_buffers: bool = True

    def __call__(self, source: Path, target: Path, kept: dict[str, int]) -> dict[str, Any]:
        quantize(source, target, kept, threads=self.threads)
        # It loads the copy, too: of a full disk llama.cpp's quantiser does not always tell.
        return asdict(compare(source, target, threads=self.threads, extra_buffers=self.extra_buffers))


def compare(
    original: Path, copy: Path, *, threads: int, text: str | None = None, extra_buffers: bool = True
) -> RepackNote | VectorNote:
    """Reads `text`, by default the sample of this package, with both models, one after the other.

    Raises ModelError where one can't be loaded.
    """
    text = text or files("pipeline.model").joinpath("sample.txt").read_text(encoding="utf-8")
    paths = (original, copy)
    if is_embedding_model(LlamaFile(original, extra_buffers=extra_buffers).traits):
        vectors = [_embed(LlamaFile(path, extra_buffers=extra_buffers), text, threads) for path in paths]
        return VectorNote.of(*vectors)
    before, after = (_read(LlamaFile(path, extra_buffers=extra_buffers), text, threads) for path in paths)
    return RepackNote(len(before.losses), before.agreement(after), before.perplexity, after.perplexity)


def _read(file: LlamaFile, text: str, threads: int) -> Scores:
    config = EngineConfig(
        slots=_AT_ONCE, context=min(_CONTEXT, file.traits.context), batch=_AT_ONCE, reproducible=False
    )
    # No memory to spare makes cells for one row: the others only stand for rows of logits.
    model = LlamaGenerativeModel(file, fit(config, file.traits, threads=threads, on_gpu=False, memory=0))
    return score(model, model.vocabulary.tokenize(text, add_special=True, parse_special=False))


def _embed(file: LlamaFile, text: str, threads: int) -> Vectors:
    """The vectors of pieces of `text` that overlap by half: each has others that are like it."""
    words = text.split()
    pieces = [" ".join(words[at : at + _WORDS]) for at in range(0, len(words) - _WORDS // 2, _WORDS // 2)]
    model = LlamaEmbeddingModel(file, EngineConfig(), threads=threads)
    tokens = [model.vocabulary.tokenize(piece, add_special=True, parse_special=False) for piece in pieces]
    return Embedder(model).embed([each[: model.context] for each in tokens])


def _nearest(vectors: Vectors) -> NDArray[np.int64]:
    """The ten nearest other texts of each, shape [texts, 10]."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argpartition(-likeness, _NEAREST, axis=1)[:, :_NEAREST]
