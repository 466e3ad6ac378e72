"""Writes a model as Q8_0, and measures on a short sample what it says differently then."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.config import EngineConfig
from pipeline.engine.llama import LlamaFile, LlamaGenerativeModel
from pipeline.engine.llama_embedding import is_embedding_model
from pipeline.engine.llama_quantize import quantize
from pipeline.engine.scores import Scores, score
from pipeline.engine.settings import fit

_CONTEXT = 512
_AT_ONCE = 64


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
class Requantiser:
    """A `Requantise` with llama.cpp on `threads` CPUs. What it returns are a `RepackNote`'s fields.

    extra_buffers: as for `LlamaFile`."""

    threads: int
    extra_buffers: bool = True

    def __call__(self, source: Path, target: Path, kept: dict[str, int]) -> dict[str, Any] | None:
        quantize(source, target, kept, threads=self.threads)
        # It loads the copy, too: of a full disk llama.cpp's quantiser does not always tell.
        note = compare(source, target, threads=self.threads, extra_buffers=self.extra_buffers)
        return asdict(note) if note else None


def compare(
    original: Path, copy: Path, *, threads: int, text: str | None = None, extra_buffers: bool = True
) -> RepackNote | None:
    """Reads `text`, by default the sample of this package, with both models, one after the other.

    None for an embedding model, which chooses no tokens. Raises ModelError where one can't be loaded.
    """
    text = text or files("pipeline.model").joinpath("sample.txt").read_text(encoding="utf-8")
    files_read = (LlamaFile(path, extra_buffers=extra_buffers) for path in (original, copy))
    before, after = (_read(file, text, threads) for file in files_read)
    if before is None or after is None:
        return None
    return RepackNote(len(before.losses), before.agreement(after), before.perplexity, after.perplexity)


def _read(file: LlamaFile, text: str, threads: int) -> Scores | None:
    if is_embedding_model(file.traits):
        return None
    config = EngineConfig(
        slots=_AT_ONCE, context=min(_CONTEXT, file.traits.context), batch=_AT_ONCE, reproducible=False
    )
    # No memory to spare makes cells for one row: the others only stand for rows of logits.
    model = LlamaGenerativeModel(file, fit(config, file.traits, threads=threads, on_gpu=False, memory=0))
    return score(model, model.vocabulary.tokenize(text, add_special=True, parse_special=False))
